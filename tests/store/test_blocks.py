"""Blocks in single and half precision and in int8, and blocks whose `A` a seed names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from melo_store.errors import DamagedProjectError
from melo_store.format import codec
from melo_store.format.tables import blocks
from melo_store.maintenance.gc import collect
from melo_store.maintenance.migrate import migrate
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.projection import random_projection
from melo_store.quantization import quantized, rounded
from melo_store.records import LoraSlice


@st.composite
def lora_slices(draw):
    """Slices of some modules, of each precision, trained or drawn."""
    slices = {}
    for module in draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True)):
        rank, inner, outer = (draw(st.integers(1, 4)) for _ in range(3))
        seed = draw(st.none() | st.integers(-(2**63), 2**63 - 1))
        in_int8 = draw(st.booleans())

        def numbers(shape, side, in_int8=in_int8):
            dtype = np.float32 if in_int8 else draw(st.sampled_from((np.float32, np.float16)))
            width = 8 * np.dtype(dtype).itemsize
            drawn = draw(
                arrays.arrays(dtype, shape, elements=st.floats(-100, 100, width=width, allow_nan=False))
            )
            return rounded(drawn, side) if in_int8 else drawn

        A = numbers((rank, inner), "A") if seed is None else random_projection(seed, module, rank, inner)
        slices[module] = LoraSlice(A, numbers((outer, rank), "B"), draw(st.floats(0.1, 10)), seed, in_int8)
    return slices


@given(lora_slices())
def test_what_is_written_is_read(tmp_path_factory, slices):
    path = tmp_path_factory.mktemp("blocks") / "000001.arrow"
    written = codec.write_batches(path, blocks.SCHEMA, [blocks.encode(3, slices)])
    batch = blocks.read(codec.open_batches(path, written.size), 0, path)
    read = blocks.decode(batch, 3, path)
    assert list(read) == list(slices)
    for module, part in slices.items():
        for ours, theirs in ((part.A, read[module].A), (part.B, read[module].B)):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert (part.scale, part.seed) == (read[module].scale, read[module].seed)
        assert (part.in_int8, part.nbytes) == (read[module].in_int8, read[module].nbytes)
    with pytest.raises(DamagedProjectError, match="other than 4"):
        blocks.decode(batch, 4, path)


def test_a_named_projection_is_not_stored(project, make):
    A = random_projection(7, "m", 2, 4096)
    B = np.ones((4, 2), np.float16)
    sizes = {}
    for name, part in (("own", LoraSlice(A, B, 1.0)), ("named", LoraSlice(A, B, 1.0, seed=7))):
        make.commit(project, [make.edit(name)], {"new": {"m": part}})
        sizes[name] = sum(
            entry.size for entry in Project.open(project.path).files() if entry.role == "blocks"
        )
    sizes["named"] -= sizes["own"]
    assert sizes["own"] - sizes["named"] > 0.99 * A.nbytes
    one, other = (Project.open(project.path).block(name).slices["m"] for name in ("b000001", "b000002"))
    assert np.array_equal(one.A, other.A) and np.array_equal(one.B, other.B)
    assert (one.nbytes, other.nbytes) == (A.nbytes + B.nbytes, B.nbytes)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 4)),
        elements=st.floats(-(2.0**126), 2.0**126, width=32),
    )
)
def test_int8_keeps_a_number_to_half_a_step_and_what_it_keeps_for_good(matrix):
    kept = rounded(matrix, "B")
    smallest = np.finfo(np.float32).tiny
    largest = np.abs(matrix).max(axis=0).astype(np.float64)
    assert (np.abs(kept.astype(np.float64) - matrix) <= largest / 253 + 127 * smallest).all()
    assert np.array_equal(rounded(kept, "B"), kept)
    assert np.array_equal(rounded(matrix.T, "A"), kept.T)
    levels, steps = quantized(matrix, "B")
    assert (np.abs(levels) <= 127).all() and steps.shape == (matrix.shape[1],)


def test_int8_takes_a_quarter_of_single_precision(project, make):
    random = np.random.default_rng(0)
    A, B = (random.normal(size=shape).astype(np.float32) for shape in ((2, 6000), (6000, 2)))
    sizes = []
    for part in (LoraSlice(A, B, 1.0), LoraSlice(rounded(A, "A"), rounded(B, "B"), 1.0, in_int8=True)):
        make.commit(project, [make.edit(f"{part.in_int8}")], {"new": {"m": part}})
        files = [each for each in Project.open(project.path).files() if each.role == "blocks"]
        sizes.append(sum(each.size for each in files) - sum(sizes))
    assert sizes[1] < 0.3 * sizes[0]
    assert Project.open(project.path).block("b000002").slices["m"].nbytes == 24_000 + 4 * 4


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_matrix_with_other_steps_than_its_rank_is_damage(tmp_path, side):
    part = LoraSlice(*(np.ones(shape, np.float32) for shape in ((2, 3), (4, 2))), 1.0, in_int8=True)
    batch = blocks.encode(3, {"m": part})
    column = f"steps_{side}"
    one = codec.number_rows([np.ones(1, np.float32)])
    batch = batch.set_column(batch.schema.names.index(column), blocks.SCHEMA.field(column), one)
    with pytest.raises(DamagedProjectError, match=f"1 steps of {side}"):
        blocks.decode(batch, 3, tmp_path)


def test_the_numbers_of_a_projection_never_change():
    assert random_projection(0, "m", 2, 3).tolist() == [
        [0.11760091781616211, -0.36600473523139954, -0.35398682951927185],
        [-0.4779353737831116, 0.4997287094593048, 0.5395267605781555],
    ]


@given(st.integers(), st.text(), st.integers(1, 5), st.integers(1, 300))
def test_a_projection_is_uniform_as_lora_starts_and_a_lower_rank_is_its_beginning(seed, module, rank, width):
    A = random_projection(seed, module, rank, width)
    assert (A.shape, A.dtype) == ((rank, width), np.float32)
    assert np.abs(A).max() <= width**-0.5
    assert np.array_equal(A[:1], random_projection(seed, module, 1, width))
    if rank * width > 500:
        assert abs(A.mean()) < 0.2 * width**-0.5
        assert A.std() == pytest.approx((3 * width) ** -0.5, rel=0.2)


def test_modules_and_seeds_have_numbers_of_their_own():
    drawn = [random_projection(seed, module, 1, 64) for seed in (0, 1) for module in ("a", "b")]
    assert len({each.tobytes() for each in drawn}) == 4


def test_blocks_of_an_older_format_are_merged_with_newer_ones(format3, make):
    before = {name: format3.block(name).slices for name in format3.block_ids()}
    migrate(format3.path)
    half = {"m": LoraSlice(random_projection(3, "m", 1, 4), np.ones((4, 1), np.float16), 1.0, seed=3)}
    for number in range(40):
        make.commit(format3, [make.edit(f"more {number}", radius=None)], {"new": half})
    collect(format3.path, versions={}, keep=1)
    assert verify(format3.path) == []
    after = Project.open(format3.path)
    assert len([entry for entry in after.files() if entry.role == "blocks"]) < 10
    for name, slices in before.items():
        for module, part in slices.items():
            assert np.array_equal(part.A, after.block(name).slices[module].A)
            assert np.array_equal(part.B, after.block(name).slices[module].B)
    assert np.array_equal(after.block("b000043").slices["m"].A, half["m"].A)
