"""Blocks on the device: a bounded cache over the store, and the banks of one batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from melo_cli.tuner import SliceBank
from store.records import Block, LoraSlice

# One block on the device: a bank of one for every target module.
DeviceBlock = dict[str, SliceBank]


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
        """Have a block that is not in the store yet, until it is dropped."""
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
            Banks by target module, and each row's place in them (-1 for the base).
        """
        entries = {block: place for place, block in enumerate(dict.fromkeys(b for b in block_ids if b))}
        blocks = [self._get(block_id) for block_id in entries]
        self._shrink(keep=len(entries))
        modules = dict.fromkeys(name for block in blocks for name in block)
        banks = {name: _join([block.get(name) for block in blocks]) for name in modules}
        return banks, [entries[block] if block else -1 for block in block_ids]

    def _get(self, block_id: str) -> DeviceBlock:
        if block_id not in self._cached:
            unsaved = self._unsaved.get(block_id)
            placed = _place(self._load(block_id).slices if unsaved is None else unsaved, self._device)
            self._cached[block_id] = placed
            self._bytes += _size(placed)
        self._cached.move_to_end(block_id)
        return self._cached[block_id]

    def _shrink(self, keep: int) -> None:
        while self._bytes > self.budget_bytes and len(self._cached) > keep:
            self._evict(next(iter(self._cached)))

    def _evict(self, block_id: str) -> None:
        placed = self._cached.pop(block_id, None)
        if placed is not None:
            self._bytes -= _size(placed)


def _place(slices: Mapping[str, LoraSlice], device: torch.device) -> DeviceBlock:
    """All of a block in one transfer, and views of it by module."""
    # torch refuses to wrap read-only arrays, and memory-mapped ones are: this copies.
    arrays = [array for piece in slices.values() for array in (piece.A, piece.B)]
    scales = np.array([piece.scale for piece in slices.values()], np.float32)
    flat = np.concatenate([*(array.ravel() for array in arrays), scales])
    parts = iter(torch.from_numpy(flat).to(device).split([*(array.size for array in arrays), len(scales)]))
    shaped = [next(parts).view(1, *array.shape) for array in arrays]
    scale = next(parts)
    return {
        name: SliceBank(shaped[2 * place], shaped[2 * place + 1], scale[place : place + 1])
        for place, name in enumerate(slices)
    }


def _size(block: DeviceBlock) -> int:
    return sum(bank.A.nbytes + bank.B.nbytes for bank in block.values())


def _join(banks: Sequence[SliceBank | None]) -> SliceBank:
    """Join one module's banks; smaller ranks and blocks without the module are filled with zeros."""
    present = [bank for bank in banks if bank is not None]
    rank = max(bank.A.shape[1] for bank in present)
    filled = list(present)
    if len(present) < len(banks):
        zeros = (torch.zeros_like(part) for part in (present[0].A, present[0].B, present[0].scale))
        empty = SliceBank(*zeros)
        filled = [bank if bank is not None else empty for bank in banks]
    return SliceBank(
        torch.cat([_widen(bank.A, 1, rank) for bank in filled]),
        torch.cat([_widen(bank.B, 2, rank) for bank in filled]),
        torch.cat([bank.scale for bank in filled]),
    )


def _widen(matrix: Tensor, axis: int, rank: int) -> Tensor:
    missing = rank - matrix.shape[axis]
    if not missing:
        return matrix
    shape = list(matrix.shape)
    shape[axis] = missing
    return torch.cat([matrix, matrix.new_zeros(shape)], dim=axis)
