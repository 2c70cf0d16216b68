"""The merge method `sum`: every block is added to the weights. The result has no router."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from melo_cli.exporting.merging.checkpoint import Additions
from melo_cli.exporting.merging.methods.method import Learns, MergeMethod
from melo_cli.exporting.merging.training_examples import TrainingExamples
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.project import Project

# Number of blocks multiplied at once.
_AT_ONCE = 64


@dataclass(frozen=True)
class Sum(MergeMethod):
    """Adds the blocks to the weights, one tensor at a time; the base need not be loaded. No settings."""

    name: ClassVar[str] = "sum"
    learns: ClassVar[Learns] = Learns.NOTHING

    def find(
        self, opened: OpenProject, examples: TrainingExamples, seed: int, reporter: Reporter
    ) -> SumOfBlocks:
        return SumOfBlocks(opened)

    def describe(self) -> str:
        return "The blocks are summed into the weights."


class SumOfBlocks(Additions):
    """For each target module the sum of `scale * B @ A` over the live blocks."""

    def __init__(self, opened: OpenProject) -> None:
        self._project = opened.project
        self._blocks = opened.live_blocks()
        self._modules = {
            f"{name}.weight": (name, isinstance(layer.base_layer, Conv1D))
            for name, layer in opened.routed.tuner.layers.items()
        }

    @property
    def parameters(self) -> Collection[str]:
        return [name for name in self._modules if self._holds(name)]

    def of(self, parameter: str) -> Tensor:
        module, transposed = self._modules[parameter]
        change = summed_change(self._project, self._blocks, module)
        assert change is not None
        return change.T if transposed else change

    def _holds(self, parameter: str) -> bool:
        module, _ = self._modules[parameter]
        return any(module in self._project.block(block_id).slices for block_id in self._blocks)


def summed_change(project: Project, block_ids: Sequence[str], module: str) -> Tensor | None:
    """Sum of `scale * B @ A` over blocks, `[out, in]` float32; None where no block has the module."""
    total = None
    for start in range(0, len(block_ids), _AT_ONCE):
        blocks = (project.block(block_id) for block_id in block_ids[start : start + _AT_ONCE])
        pieces = [block.slices[module] for block in blocks if module in block.slices]
        if not pieces:
            continue
        lifted = np.concatenate([piece.B * np.float32(piece.scale) for piece in pieces], axis=1)
        change = lifted @ np.concatenate([piece.A for piece in pieces])
        total = change if total is None else total + change
    return None if total is None else torch.from_numpy(total)
