"""Edits files: one row an edit, with its key and its token vectors.

A file in which no edit has token vectors lacks their column, as all files of formats 1 and 2 do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from melo_store.errors import InvalidEditError
from melo_store.format import codec
from melo_store.records import NewEdit, Tokens, Vector

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def schema_of(dim: int, width: int) -> Any:
    """The schema of an edits file; ``block`` is a block's running number.

    Args:
        dim: size of a key; 0 where no edit has one.
        width: size of a token vector; 0 where no edit has any.
    """
    tokens = [pa.field("tokens", pa.list_(pa.list_(pa.float16(), width)))] if width else []
    return pa.schema(
        [
            pa.field("number", pa.int64(), nullable=False),
            pa.field("prompt", pa.string(), nullable=False),
            pa.field("target", pa.string(), nullable=False),
            pa.field("rephrases", pa.list_(pa.string()), nullable=False),
            pa.field(
                "locality",
                pa.list_(
                    pa.struct([pa.field("prompt", pa.string(), nullable=False), ("answer", pa.string())])
                ),
                nullable=False,
            ),
            pa.field("subject", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("label", pa.list_(pa.int64()), nullable=False),
            pa.field("key", pa.list_(pa.float32(), dim)),
            *tokens,
            pa.field("block", pa.int64()),
            pa.field("radius", pa.float64()),
            pa.field("metrics", pa.string(), nullable=False),
            pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("supersedes", pa.list_(pa.int64()), nullable=False),
        ]
    )


@dataclass(frozen=True, slots=True)
class NumberedEdit:
    """A new edit with the numbers that the store gives it."""

    number: int
    edit: NewEdit
    block: int | None
    supersedes: tuple[int, ...]


def encode(edits: Sequence[NumberedEdit], created_at: datetime) -> Any:
    """Edits as one record batch.

    Raises:
        InvalidEditError: a text that is no Unicode, or metadata that is no JSON.
    """
    new = [each.edit for each in edits]
    dim = max((len(edit.key) for edit in new if edit.key is not None), default=0)
    width = max((edit.tokens.shape[1] for edit in new if edit.tokens is not None), default=0)
    microseconds = (created_at - _EPOCH) // (datetime.resolution)
    columns: dict[str, Sequence[Any]] = {
        "number": [each.number for each in edits],
        "prompt": [edit.prompt for edit in new],
        "target": [edit.target for edit in new],
        "rephrases": [list(edit.rephrases) for edit in new],
        "locality": [[{"prompt": p, "answer": a} for p, a in edit.locality] for edit in new],
        "subject": [edit.subject for edit in new],
        "metadata": [codec.json_text(edit.metadata) for edit in new],
        "status": [edit.status for edit in new],
        "label": [list(edit.label) for edit in new],
        "block": [each.block for each in edits],
        "radius": [edit.radius for edit in new],
        "metrics": [codec.json_text(edit.metrics) for edit in new],
        "created_at": [microseconds] * len(new),
        "supersedes": [list(each.supersedes) for each in edits],
    }
    schema = schema_of(dim, width)
    made = {
        "key": key_column([edit.key for edit in new], dim),
        "tokens": tokens_column([edit.tokens for edit in new], width),
    }
    try:
        arrays = [
            made[field.name] if field.name in made else pa.array(columns[field.name], field.type)
            for field in schema
        ]
    except (UnicodeError, pa.ArrowException, OverflowError) as error:
        raise InvalidEditError(f"an edit cannot be stored ({error})") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def key_column(keys: Sequence[Vector | None], dim: int) -> Any:
    """Keys as an Arrow column; entries without a key are null. Without any key, `dim` is 0."""
    if dim == 0:
        return pa.nulls(len(keys), pa.list_(pa.float32(), 0))
    rows = np.zeros((len(keys), dim), np.float32)
    for at, key in enumerate(keys):
        if key is not None:
            rows[at] = key
    missing = pa.array([key is None for key in keys], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim, mask=missing)


def tokens_column(tokens: Sequence[Tokens | None], width: int) -> Any:
    """Token vectors as an Arrow column; entries without any are null."""
    rows = [np.ascontiguousarray(each, np.float16) for each in tokens if each is not None]
    if not rows:
        return pa.nulls(len(tokens), pa.list_(pa.list_(pa.float16(), width)))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(rows).reshape(-1)), width)
    ends = np.cumsum([0, *(0 if each is None else len(each) for each in tokens)])
    starts = pa.array(ends, pa.int32(), mask=np.array([*(each is None for each in tokens), False]))
    return pa.ListArray.from_arrays(starts, flat)
