"""Blocks files: a record batch for each block, with a row for each module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melo_store.format import codec
from melo_store.projection import random_projection
from melo_store.quantization import RANK_AXIS, Side, dequantized, quantized
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
        pa.field("byte_A", pa.large_list(pa.int8()), nullable=False),
        pa.field("byte_B", pa.large_list(pa.int8()), nullable=False),
        pa.field("steps_A", pa.large_list(pa.float32()), nullable=False),
        pa.field("steps_B", pa.large_list(pa.float32()), nullable=False),
        pa.field("seed", pa.int64()),
    ]
)

_MOST_INPUTS = 1 << 24  # a damaged file must not claim memory without end
_NO_NUMBERS = np.empty(0, np.float32)
_TYPES: dict[str, type[np.number[Any]]] = {
    "": np.float32,
    "half_": np.float16,
    "byte_": np.int8,
    "steps_": np.float32,
}
"""How the columns of a side begin: a matrix as it is in single or half precision, or levels and steps."""


def encode(number: int, slices: Mapping[str, LoraSlice]) -> Any:
    """The slices of one block as a record batch."""
    parts = list(slices.values())
    columns = {
        "block": pa.array([number] * len(parts), pa.int64()),
        "module": pa.array(list(slices), pa.string()),
        "scale": pa.array([float(part.scale) for part in parts], pa.float64()),
        "rank": pa.array([part.A.shape[0] for part in parts], pa.int64()),
        "in": pa.array([part.A.shape[1] for part in parts], pa.int64()),
        "out": pa.array([part.B.shape[0] for part in parts], pa.int64()),
        **_columns("A", [_stored(part.A, "A", part) if part.seed is None else {} for part in parts]),
        **_columns("B", [_stored(part.B, "B", part) for part in parts]),
        "seed": pa.array([part.seed for part in parts], pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _stored(matrix: Matrix, side: Side, part: LoraSlice) -> dict[str, NDArray[Any]]:
    """What stands for a matrix, by the beginning of its column."""
    if not part.in_int8:
        return {"half_" if matrix.dtype == np.float16 else "": matrix}
    levels, steps = quantized(np.asarray(matrix, np.float32), side)
    return {"byte_": levels, "steps_": steps}


def _columns(side: str, stored: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    return {
        f"{prefix}{side}": codec.number_rows([row.get(prefix, _NO_NUMBERS) for row in stored], dtype)
        for prefix, dtype in _TYPES.items()
    }


def read(reader: Any, at: int, path: Path) -> Any:
    """The record batch of one block, in `SCHEMA`.

    Raises:
        DamagedProjectError: it does not bear what it claims, or has other columns.
    """
    if not reader.schema.equals(_OLDER):
        return codec.read_batch(reader, at, SCHEMA, path)
    batch = codec.read_batch(reader, at, _OLDER, path)
    nothing = [_NO_NUMBERS] * batch.num_rows
    added = {
        field.name: codec.number_rows(nothing, field.type.value_type.to_pandas_dtype())
        for field in SCHEMA
        if field.name not in _OLDER.names and field.name != "seed"
    }
    columns = dict(zip(_OLDER.names, batch.columns, strict=True)) | added
    columns["seed"] = pa.nulls(batch.num_rows, pa.int64())
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def decode(batch: Any, number: int, path: Path) -> dict[str, LoraSlice]:
    """The slices in a record batch: read-only views of it, but for matrices in int8 and those that a seed
    names.

    Raises:
        DamagedProjectError: another block, or shapes that do not fit.
    """
    with codec.damage(path):
        if set(batch.column("block").to_pylist()) - {number}:
            raise ValueError(f"it holds a block other than {number}")
        sides = {side: _Side(batch, side) for side in RANK_AXIS}
        slices = {}
        names = ("module", "scale", "rank", "in", "out", "seed")
        rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        for at, (module, scale, rank, inner, outer, seed) in enumerate(rows):
            B, in_int8 = sides["B"].matrix(at, (outer, rank))
            if seed is None:
                A, _ = sides["A"].matrix(at, (rank, inner))
            else:
                A = _drawn(seed, module, rank, inner)
            slices[module] = LoraSlice(A, B, scale, seed, in_int8)
        if len(slices) != batch.num_rows:
            raise ValueError("it holds a module twice")
        return slices


def _drawn(seed: int, module: str, rank: int, inner: int) -> Matrix:
    if inner > _MOST_INPUTS:
        raise ValueError(f"module {module} has {inner} inputs")
    return random_projection(seed, module, rank, inner)


class _Side:
    """One side of the slices in a record batch."""

    def __init__(self, batch: Any, side: Side) -> None:
        self._side = side
        self._columns = {prefix: codec.ragged(batch.column(f"{prefix}{side}")) for prefix in _TYPES}

    def matrix(self, at: int, shape: tuple[int, int]) -> tuple[Matrix, bool]:
        """The matrix of a row, and whether it is stored in int8.

        Raises:
            ValueError: it is stored twice, or not in this shape.
        """
        held: dict[str, Any] = {
            prefix: numbers for prefix, column in self._columns.items() if len(numbers := column.row(at))
        }
        steps = held.pop("steps_", _NO_NUMBERS)
        if len(held) > 1:
            raise ValueError(f"it holds {self._side} twice")
        ((prefix, numbers),) = held.items() or [("", _NO_NUMBERS)]
        matrix: Any = numbers.reshape(shape)
        if prefix != "byte_":
            return matrix, False
        if len(steps) != shape[RANK_AXIS[self._side]]:
            raise ValueError(f"it holds {len(steps)} steps of {self._side}")
        return dequantized(matrix, steps, self._side), True
