"""Blocks files: a record batch for each block, with a row for each module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from melo_store.format import codec
from melo_store.records import LoraSlice, Vector

SCHEMA = pa.schema(
    [
        pa.field("block", pa.int64(), nullable=False),
        pa.field("module", pa.string(), nullable=False),
        pa.field("scale", pa.float64(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("in", pa.int64(), nullable=False),
        pa.field("out", pa.int64(), nullable=False),
        pa.field("A", pa.large_list(pa.float32()), nullable=False),
        pa.field("B", pa.large_list(pa.float32()), nullable=False),
    ]
)


def encode(number: int, slices: Mapping[str, LoraSlice]) -> Any:
    """The slices of one block as a record batch."""
    parts = [slices[module] for module in slices]
    columns = [
        pa.array([number] * len(parts), pa.int64()),
        pa.array(list(slices), pa.string()),
        pa.array([float(part.scale) for part in parts], pa.float64()),
        pa.array([part.A.shape[0] for part in parts], pa.int64()),
        pa.array([part.A.shape[1] for part in parts], pa.int64()),
        pa.array([part.B.shape[0] for part in parts], pa.int64()),
        codec.float_rows([part.A for part in parts]),
        codec.float_rows([part.B for part in parts]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def decode(batch: Any, number: int, path: Path) -> dict[str, LoraSlice]:
    """The slices in a record batch, as read-only views of it.

    Raises:
        DamagedProjectError: another block, or shapes that do not fit.
    """
    with codec.damage(path):
        if set(batch.column("block").to_pylist()) - {number}:
            raise ValueError(f"it holds a block other than {number}")
        A, B = codec.ragged(batch.column("A")), codec.ragged(batch.column("B"))
        names, scales = batch.column("module").to_pylist(), batch.column("scale").to_pylist()
        shapes = zip(*(batch.column(name).to_pylist() for name in ("rank", "in", "out")), strict=True)
        slices = {}
        for at, (name, scale, (rank, inner, outer)) in enumerate(zip(names, scales, shapes, strict=True)):
            slices[name] = LoraSlice(
                cast("Vector", A.row(at)).reshape(rank, inner),
                cast("Vector", B.row(at)).reshape(outer, rank),
                scale,
            )
        if len(slices) != len(names):
            raise ValueError("it holds a module twice")
        return slices
