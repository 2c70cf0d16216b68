"""`WeightChanges` that enlarge every tensor of a model and fill the added parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor


class Widened(ABC):
    """`WeightChanges` with the base in the corner of larger tensors, and the added parts around it.

    Args:
        shapes: shape of every tensor of the larger model, by parameter name.
        settings: changed settings of the config.
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
        for start, part in self._added[parameter]:
            where = tuple(slice(at, at + size) for at, size in zip(start, part.shape, strict=True))
            grown[where] = part.to(weight.dtype)
        return grown

    @abstractmethod
    def _keep(self, parameter: str, weight: Tensor, grown: Tensor) -> None:
        """Copy the base's own weight into the larger tensor, so that it computes the same as in the base."""

    def _put(self, parameter: str, index: tuple[int, ...], part: Tensor) -> None:
        """Add a part whose first element has the index `index`."""
        self._added[parameter].append((index, part))


def corner(weight: Tensor, grown: Tensor) -> Tensor:
    """The corner of a larger tensor that has the weight's shape, as a view."""
    return grown[tuple(slice(0, size) for size in weight.shape)]
