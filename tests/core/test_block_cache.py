"""The cache of blocks on the device, and what a batch takes from it."""

from __future__ import annotations

import numpy as np
import torch

from melo_cli.runtime.block_cache import BlockCache
from melo_cli.tuner import ActiveBlocks
from melo_store.projection import random_projection
from melo_store.records import Block, LoraSlice

# One module of 4 inputs and 6 outputs at rank 2, and its scale: 84 bytes a block.
BLOCK_BYTES = 4 * (2 * (4 + 6) + 1)


class Shelf:
    """Makes blocks and counts how often each was fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def __call__(self, block_id: str) -> Block:
        self.fetched.append(block_id)
        return Block(block_id, {"m": slice_of(int(block_id))})


def slice_of(seed: int, rank: int = 2) -> LoraSlice:
    random = np.random.default_rng(seed)
    A = random.standard_normal((rank, 4)).astype(np.float32)
    return LoraSlice(A=A, B=random.standard_normal((6, rank)).astype(np.float32), scale=1.0 + seed)


def cache(shelf: Shelf, blocks: int) -> BlockCache:
    return BlockCache(shelf, torch.device("cpu"), budget_bytes=blocks * BLOCK_BYTES)


def test_blocks_that_were_used_lately_are_not_fetched_again() -> None:
    shelf = Shelf()
    held = cache(shelf, blocks=2)
    held.banks(["1", "2"])
    held.banks(["1"])
    held.banks(["3"])
    held.banks(["1", "3"])
    assert shelf.fetched == ["1", "2", "3"]
    held.banks(["2"])
    assert shelf.fetched == ["1", "2", "3", "2"]


def test_blocks_of_either_precision_stand_in_one_bank_as_float32() -> None:
    single = slice_of(1)
    half = LoraSlice(single.A.astype(np.float16), single.B.astype(np.float16), 1.0)
    named = LoraSlice(random_projection(3, "m", 2, 4), half.B, 1.0, seed=3)
    kinds = {"1": single, "2": half, "3": named}
    held = BlockCache(lambda name: Block(name, {"m": kinds[name]}), torch.device("cpu"))
    banks, rows = held.banks(["1", "2", "3"])
    assert rows == [0, 1, 2] and banks["m"].A.dtype == banks["m"].B.dtype == torch.float32
    for at, piece in enumerate(kinds.values()):
        np.testing.assert_array_equal(banks["m"].A[at].numpy(), piece.A.astype(np.float32))
        np.testing.assert_array_equal(banks["m"].B[at].numpy(), piece.B.astype(np.float32))


def test_a_batch_may_need_more_blocks_than_the_cache_may_hold() -> None:
    shelf = Shelf()
    held = cache(shelf, blocks=1)
    banks, rows = held.banks(["1", None, "2", "3", "2"])
    assert rows == [0, -1, 1, 2, 1]
    assert banks["m"].A.shape == (3, 2, 4)
    held.banks(["4"])
    held.banks(["4"])
    held.banks(["3"])
    assert shelf.fetched == ["1", "2", "3", "4", "3"]


def test_blocks_that_are_not_in_the_store_outlast_a_full_cache_and_go_when_they_are_dropped() -> None:
    shelf = Shelf()
    held = cache(shelf, blocks=1)
    for block_id in ("7", "8"):
        held.put(block_id, {"m": slice_of(0)})
    for block_id in ("7", "8", "7"):
        banks, _ = held.banks([block_id])
        np.testing.assert_array_equal(banks["m"].A[0].numpy(), slice_of(0).A)
    assert shelf.fetched == []
    held.drop("7")
    held.banks(["7"])
    assert shelf.fetched == ["7"]


def test_each_row_gets_its_block_and_rows_of_the_base_get_none() -> None:
    held = cache(Shelf(), blocks=4)
    held.put("9", {"m": slice_of(9, rank=3)})
    order = ["2", None, "9", "2"]
    banks, rows = held.banks(order)
    active = ActiveBlocks.of(banks, rows, torch.device("cpu"))
    gathered = active.gathered("m")
    assert active.fired.tolist() == [0, 2, 3]
    for position, block_id in enumerate(["2", "9", "2"]):
        piece = slice_of(int(block_id), rank=3 if block_id == "9" else 2)
        product = gathered.B[position] @ gathered.A[position]
        np.testing.assert_allclose(product.numpy(), piece.scale * piece.B @ piece.A, rtol=1e-5)


def test_a_batch_gathers_its_blocks_once_for_all_decoding_steps() -> None:
    held = cache(Shelf(), blocks=4)
    active = ActiveBlocks.of(*held.banks(["2", None, "1"]), torch.device("cpu"))
    assert active.gathered("m") is active.gathered("m")
    beams = active.expanded(2)
    assert beams.gathered("m").A.shape == (4, 2, 4)
    assert beams.gathered("m") is beams.gathered("m")


def test_a_block_adds_nothing_to_a_module_that_it_lacks() -> None:
    held = cache(Shelf(), blocks=4)
    held.put("both", {"m": slice_of(1), "n": slice_of(2)})
    held.put("one", {"m": slice_of(3)})
    banks, rows = held.banks(["one", "both", "1"])
    for name, added in {"m": [True, True, True], "n": [False, True, False]}.items():
        bank = banks[name]
        assert len(bank.A) == len(bank.B) == len(bank.scale) == 3
        assert [bool((bank.B[row] @ bank.A[row]).any()) for row in rows] == added
