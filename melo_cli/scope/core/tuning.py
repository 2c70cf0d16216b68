"""Small changes of an encoder's weights, with which it reads questions better."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

_PREFIX = "tuning."


@dataclass(frozen=True)
class Tuning:
    """What is added to the weights of some linear modules: `B @ A`, of low rank (LoRA, arXiv 2106.09685).

    Attributes:
        parts: by the module's name `A [rank, in]` and `B [out, rank]`, float32; without any, nothing changes.
    """

    parts: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def applied_to(self, model: nn.Module) -> nn.Module:
        """A model with these changes; the one given stays as it is, and shares all other weights with it."""
        if not self.parts:
            return model
        changed = {id(model.get_submodule(name).get_parameter("weight")) for name in self.parts}
        shared = [each for each in (*model.parameters(), *model.buffers()) if id(each) not in changed]
        tuned = copy.deepcopy(model, {id(each): each for each in shared})
        for name, (A, B) in self.parts.items():
            weight = tuned.get_submodule(name).get_parameter("weight")
            weight.data += (B @ A).to(weight)
        return tuned

    def digest(self) -> str:
        """sha256 of its numbers."""
        digest = hashlib.sha256()
        for name, array in sorted(self.to_arrays().items()):
            digest.update(f"{name} {tuple(array.shape)}\n".encode())
            digest.update(array.numpy().tobytes())
        return digest.hexdigest()

    def to_arrays(self) -> dict[str, Tensor]:
        """Arrays by name; `from_arrays` reads them back."""
        return {
            f"{_PREFIX}{name}.{side}": matrix
            for name, pair in self.parts.items()
            for side, matrix in zip("AB", pair, strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Tuning:
        """The tuning among some arrays.

        Raises:
            KeyError: one of a pair is missing.
        """
        names = [
            name.removesuffix(".A") for name in arrays if name.startswith(_PREFIX) and name.endswith(".A")
        ]
        return cls(
            {
                name.removeprefix(_PREFIX): (arrays[f"{name}.A"].float(), arrays[f"{name}.B"].float())
                for name in sorted(names)
            }
        )
