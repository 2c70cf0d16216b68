"""Blocks files: a record batch for each block, with a row for each module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from melo_store.format import codec
from melo_store.projection import random_projection
from melo_store.records import LoraSlice, Matrix

_OLDER_FIELDS = [
    pa.field("block", pa.int64(), nullable=False),
    pa.field("module", pa.string(), nullable=False),
    pa.field("scale", pa.float64(), nullable=False),
    pa.field("rank", pa.int64(), nullable=False),
    pa.field("in", pa.int64(), nullable=False),
    pa.field("out", pa.int64(), nullable=False),
    pa.field("A", pa.large_list(pa.float32()), nullable=False),
    pa.field("B", pa.large_list(pa.float32()), nullable=False),
]
_OLDER = pa.schema(_OLDER_FIELDS)
"""Up to format 3."""
SCHEMA = pa.schema(
    [
        *_OLDER_FIELDS,
        pa.field("half_A", pa.large_list(pa.float16()), nullable=False),
        pa.field("half_B", pa.large_list(pa.float16()), nullable=False),
        pa.field("seed", pa.int64()),
    ]
)

_MOST_INPUTS = 1 << 24  # a damaged file must not claim memory without end
_NO_NUMBERS = np.empty(0, np.float32)


def encode(number: int, slices: Mapping[str, LoraSlice]) -> Any:
    """The slices of one block as a record batch."""
    parts = list(slices.values())
    stored_A = [part.A if part.seed is None else _NO_NUMBERS for part in parts]
    columns = [
        pa.array([number] * len(parts), pa.int64()),
        pa.array(list(slices), pa.string()),
        pa.array([float(part.scale) for part in parts], pa.float64()),
        pa.array([part.A.shape[0] for part in parts], pa.int64()),
        pa.array([part.A.shape[1] for part in parts], pa.int64()),
        pa.array([part.B.shape[0] for part in parts], pa.int64()),
        _of_type(stored_A, np.float32),
        _of_type([part.B for part in parts], np.float32),
        _of_type(stored_A, np.float16),
        _of_type([part.B for part in parts], np.float16),
        pa.array([part.seed for part in parts], pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def read(reader: Any, at: int, path: Path) -> Any:
    """The record batch of one block, in `SCHEMA`.

    Raises:
        DamagedProjectError: it does not bear what it claims, or has other columns.
    """
    if not reader.schema.equals(_OLDER):
        return codec.read_batch(reader, at, SCHEMA, path)
    batch = codec.read_batch(reader, at, _OLDER, path)
    nothing = codec.float_rows([_NO_NUMBERS] * batch.num_rows, np.float16)
    no_seed = pa.nulls(batch.num_rows, pa.int64())
    return pa.RecordBatch.from_arrays([*batch.columns, nothing, nothing, no_seed], schema=SCHEMA)


def decode(batch: Any, number: int, path: Path) -> dict[str, LoraSlice]:
    """The slices in a record batch, as read-only views of it where they are stored.

    Raises:
        DamagedProjectError: another block, or shapes that do not fit.
    """
    with codec.damage(path):
        if set(batch.column("block").to_pylist()) - {number}:
            raise ValueError(f"it holds a block other than {number}")
        stored = _either(batch, "A"), _either(batch, "B")
        names = ("module", "scale", "rank", "in", "out", "seed")
        rows = zip(*(batch.column(name).to_pylist() for name in names), *stored, strict=True)
        slices = {}
        for module, scale, rank, inner, outer, seed, own_A, own_B in rows:
            B = own_B.reshape(outer, rank)
            A = own_A if seed is None else _drawn(seed, module, rank, inner)
            slices[module] = LoraSlice(A.reshape(rank, inner), B, scale, seed)
        if len(slices) != batch.num_rows:
            raise ValueError("it holds a module twice")
        return slices


def _drawn(seed: int, module: str, rank: int, inner: int) -> Matrix:
    if inner > _MOST_INPUTS:
        raise ValueError(f"module {module} has {inner} inputs")
    return random_projection(seed, module, rank, inner)


def _of_type(arrays: Sequence[Matrix], dtype: type[np.floating[Any]]) -> Any:
    """The arrays of one type; those of another are left empty."""
    return codec.float_rows([each if each.dtype == dtype else _NO_NUMBERS for each in arrays], dtype)


def _either(batch: Any, side: str) -> list[Any]:
    """The numbers of each row, from the column of the type that they have."""
    whole, half = codec.ragged(batch.column(side)), codec.ragged(batch.column(f"half_{side}"))
    rows = []
    for at in range(batch.num_rows):
        in_half, in_single = half.row(at), whole.row(at)
        if len(in_half) and len(in_single):
            raise ValueError(f"it holds {side} twice")
        rows.append(in_half if len(in_half) else in_single)
    return rows
