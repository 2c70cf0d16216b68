"""States files: changed statuses of older edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from melo_store.edit_status import EditStatusRow

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("reverted", pa.bool_(), nullable=False),
        pa.field("superseded_by", pa.int64()),
    ]
)


def encode(rows: Sequence[EditStatusRow]) -> Any:
    """Statuses of older edits as a record batch: number, reverted, superseded by which edit."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
