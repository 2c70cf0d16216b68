"""Blocks on the device: a bounded cache over the store, and the banks of one batch."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from melo_cli.tuner import SliceBank
from melo_store.records import Block, LoraSlice

# Names of the modules, with the shapes of their `A` and `B`.
Layout = tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class DeviceBlock:
    """One block on the device.

    Attributes:
        numbers: `[n]` float32, `A` and `B` of each module in turn, then the scale of each.
    """

    layout: Layout
    numbers: Tensor


class BlockCache:
    """Blocks that recent batches used, on the device, least recently used dropped first.

    Args:
        load: reads one block from the store.
        budget_bytes: what the cached blocks may take; one batch may go over it while it runs. It may be
            set later, too.
    """

    def __init__(self, load: Callable[[str], Block], device: torch.device, budget_bytes: int = 2**28) -> None:
        self.budget_bytes = budget_bytes
        self._load = load
        self._device = device
        self._unsaved: dict[str, Mapping[str, LoraSlice]] = {}
        self._cached: OrderedDict[str, DeviceBlock] = OrderedDict()
        self._bytes = 0

    def put(self, block_id: str, slices: Mapping[str, LoraSlice]) -> None:
        """Add a block that is not in the store yet, until it is dropped."""
        self.drop(block_id)
        self._unsaved[block_id] = slices

    def drop(self, block_id: str) -> None:
        """Forget a block; nothing happens where it is not held."""
        self._unsaved.pop(block_id, None)
        self._evict(block_id)

    def banks(self, block_ids: Sequence[str | None]) -> tuple[dict[str, SliceBank], list[int]]:
        """Join the blocks that a batch needs.

        Args:
            block_ids: each row's block, None for the base.

        Returns:
            Banks by target module, and each row's index in them (-1 for the base).
        """
        blocks = {block_id: self._get(block_id) for block_id in dict.fromkeys(block_ids) if block_id}
        self._shrink(keep=len(blocks))
        alike: dict[Layout, list[str]] = {}
        for block_id, block in blocks.items():
            alike.setdefault(block.layout, []).append(block_id)
        groups = [_stack(layout, [blocks[each].numbers for each in ids]) for layout, ids in alike.items()]
        entries = {block: i for i, block in enumerate(chain.from_iterable(alike.values()))}
        return _join(groups), [entries[block] if block else -1 for block in block_ids]

    def _get(self, block_id: str) -> DeviceBlock:
        if block_id not in self._cached:
            unsaved = self._unsaved.get(block_id)
            moved = _on_device(self._load(block_id).slices if unsaved is None else unsaved, self._device)
            self._cached[block_id] = moved
            self._bytes += moved.numbers.nbytes
        self._cached.move_to_end(block_id)
        return self._cached[block_id]

    def _shrink(self, keep: int) -> None:
        while self._bytes > self.budget_bytes and len(self._cached) > keep:
            self._evict(next(iter(self._cached)))

    def _evict(self, block_id: str) -> None:
        moved = self._cached.pop(block_id, None)
        if moved is not None:
            self._bytes -= moved.numbers.nbytes


def _on_device(slices: Mapping[str, LoraSlice], device: torch.device) -> DeviceBlock:
    """All of a block in one transfer."""
    # torch refuses to wrap read-only arrays, and memory-mapped ones are: this copies.
    arrays = [array.ravel() for piece in slices.values() for array in (piece.A, piece.B)]
    scales = np.array([piece.scale for piece in slices.values()], np.float32)
    layout = tuple((name, piece.A.shape, piece.B.shape) for name, piece in slices.items())
    return DeviceBlock(layout, torch.from_numpy(np.concatenate([*arrays, scales])).to(device))


def _stack(layout: Layout, blocks: Sequence[Tensor]) -> dict[str, SliceBank]:
    """The banks of blocks of one layout: views of all their numbers, one block a row."""
    rows = torch.stack(list(blocks))
    shapes = [shape for _, *pair in layout for shape in pair]
    *matrices, scales = rows.split([*map(math.prod, shapes), len(layout)], dim=1)
    shaped = [part.unflatten(1, shape) for part, shape in zip(matrices, shapes, strict=True)]
    return {
        name: SliceBank(shaped[2 * i], shaped[2 * i + 1], scales[:, i])
        for i, (name, _, _) in enumerate(layout)
    }


def _join(groups: Sequence[dict[str, SliceBank]]) -> dict[str, SliceBank]:
    """The banks of blocks of several layouts; smaller ranks and missing modules are filled with zeros."""
    if len(groups) == 1:
        return groups[0]
    counts = [len(next(iter(group.values())).scale) for group in groups]
    banks = {}
    for name in dict.fromkeys(name for group in groups for name in group):
        present = [group[name] for group in groups if name in group]
        rank = max(bank.A.shape[1] for bank in present)
        filled = [
            group[name] if name in group else _zeros(present[0], count)
            for group, count in zip(groups, counts, strict=True)
        ]
        banks[name] = SliceBank(
            torch.cat([_widen(bank.A, 1, rank) for bank in filled]),
            torch.cat([_widen(bank.B, 2, rank) for bank in filled]),
            torch.cat([bank.scale for bank in filled]),
        )
    return banks


def _zeros(like: SliceBank, count: int) -> SliceBank:
    return SliceBank(*(part.new_zeros((count, *part.shape[1:])) for part in (like.A, like.B, like.scale)))


def _widen(matrix: Tensor, axis: int, rank: int) -> Tensor:
    missing = rank - matrix.shape[axis]
    if not missing:
        return matrix
    shape = list(matrix.shape)
    shape[axis] = missing
    return torch.cat([matrix, matrix.new_zeros(shape)], dim=axis)
