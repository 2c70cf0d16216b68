"""`WeightChanges` that grow every tensor of a model, and fill what is added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor


class Widened(ABC):
    """`WeightChanges`: the base in the corner of larger tensors, with what is added around it.

    Args:
        shapes: of every tensor of the larger model.
        settings: what changes in the config.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> None:
        self._shapes, self._settings = shapes, settings
        self._added: dict[str, list[tuple[tuple[int, ...], Tensor]]] = defaultdict(list)

    @property
    def parameters(self) -> Collection[str]:
        return list(self._shapes)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._settings

    def shape(self, parameter: str, was: tuple[int, ...]) -> tuple[int, ...]:
        return self._shapes[parameter]

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        grown = weight.new_zeros(self._shapes[parameter])
        self._keep(parameter, weight, grown)
        for place, part in self._added[parameter]:
            where = tuple(slice(at, at + size) for at, size in zip(place, part.shape, strict=True))
            grown[where] = part.to(weight.dtype)
        return grown

    @abstractmethod
    def _keep(self, parameter: str, weight: Tensor, grown: Tensor) -> None:
        """Put the base's own weight in its place, so that it does there what it does in the base."""

    def _put(self, parameter: str, place: tuple[int, ...], part: Tensor) -> None:
        """Add a part, whose first element stands at `place`."""
        self._added[parameter].append((place, part))


def corner(weight: Tensor, grown: Tensor) -> Tensor:
    """What of the larger tensor has the weight's shape, to be written to."""
    return grown[tuple(slice(0, size) for size in weight.shape)]
