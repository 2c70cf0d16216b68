"""One shape for all blocks of an export, since runs of `melo edit` may differ in rank and target modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from melo_store.records import Block, LoraSlice, Vector


@dataclass(frozen=True)
class BlockShape:
    """The common shape of all blocks.

    Attributes:
        rank: the largest rank; blocks of a smaller rank are padded with zeros.
        scale: the most common scale; any other scale is multiplied into `B`.
        modules: every target module of any block, with its `(in, out)` features; a block without one of them
            gets zeros there.
    """

    rank: int
    scale: float
    modules: Mapping[str, tuple[int, int]]

    @property
    def values(self) -> int:
        """Number of parameters of one block."""
        return self.rank * sum(inputs + outputs for inputs, outputs in self.modules.values())

    @property
    def projections(self) -> list[str]:
        """The last part of the modules' names, each once."""
        return sorted({name.rpartition(".")[2] for name in self.modules})

    @classmethod
    def of(cls, blocks: Iterable[Block], targets: Sequence[str]) -> BlockShape | None:
        """The shape that holds all these blocks, with modules in the order of `targets`; None without
        blocks."""
        ranks: set[int] = set()
        scales: Counter[float] = Counter()
        modules: dict[str, tuple[int, int]] = {}
        for block in blocks:
            for name, piece in block.slices.items():
                ranks.add(piece.A.shape[0])
                scales[piece.scale] += 1
                modules[name] = (piece.A.shape[1], piece.B.shape[0])
        if not modules:
            return None
        order = {name: i for i, name in enumerate(targets)}
        ordered = sorted(modules, key=lambda name: (order.get(name, len(order)), name))
        return cls(max(ranks), scales.most_common(1)[0][0], {name: modules[name] for name in ordered})

    def fit(self, block: Block, module: str) -> LoraSlice:
        """The block's slice for a module, in this shape and in float32; `scale * B @ A` stays the same."""
        piece = block.slices.get(module)
        inputs, outputs = self.modules[module]
        if piece is None:
            empty = np.zeros((self.rank, inputs), np.float32), np.zeros((outputs, self.rank), np.float32)
            return LoraSlice(*empty, self.scale)
        missing = self.rank - piece.A.shape[0]
        A: Vector = np.pad(piece.A.astype(np.float32), ((0, missing), (0, 0)))
        B: Vector = np.pad(piece.B.astype(np.float32), ((0, 0), (0, missing)))
        if piece.scale != self.scale:
            B = B * np.float32(piece.scale / self.scale)
        return LoraSlice(A, B, self.scale)
