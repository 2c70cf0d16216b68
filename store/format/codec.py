"""Arrow IPC files: writing, and reading without a copy; `melo_store.format.tables` says what is in them.

Files are uncompressed, so that keys and block slices are read as views of the memory-mapped file. What is
read is checked (schema, lengths of buffers, text) before it is used. A wrong file raises
`DamagedProjectError`, and a wrong row count allocates nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from melo_store.clusters.delta import Ragged
from melo_store.errors import DamagedProjectError, InvalidEditError
from melo_store.format.file_io import Sink, Written, refusals, write_file
from melo_store.records import JSON


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn the exceptions that decoders raise for a broken file into a `DamagedProjectError`.

    Arrow raises `OSError` too where a length in the file points past its end.

    Raises:
        DamagedProjectError: naming the file.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DamagedProjectError(
            f"melo did not write this content ({reason})", where=str(path), hint="run 'melo verify'"
        ) from error


def json_text(value: Mapping[str, Any]) -> str:
    """JSON for a mapping; a number that JSON has no word for (NaN, infinity) becomes null.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    try:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"metadata and metrics must be JSON values ({error})") from error


def json_mapping(text: str) -> dict[str, JSON]:
    """The mapping in a JSON text.

    Raises:
        ValueError, RecursionError: it holds something else.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def write_batches(path: Path, schema: Any, batches: Sequence[Any]) -> Written:
    """Write record batches as one Arrow IPC file, forced to the disk.

    Raises:
        StorageError: the file system refused.
    """

    def produce(sink: Sink) -> None:
        with pa.PythonFile(sink, mode="w") as file, ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    return write_file(path, produce)


def mapped(path: Path, size: int, *, sha256: str | None = None) -> Any:
    """Memory-map a file as an Arrow buffer.

    Args:
        sha256: also read the whole file and hold it against this checksum.

    Raises:
        DamagedProjectError: the file is gone, or not of this size, or another one.
        StorageError: it may not be read.
    """
    if not path.is_file():
        raise DamagedProjectError("the file is missing", where=str(path), hint="run 'melo verify'")
    with refusals(path):
        actual = path.stat().st_size
        if actual != size:
            raise DamagedProjectError(
                f"the file has {actual} bytes instead of {size}", where=str(path), hint="run 'melo verify'"
            )
        with pa.memory_map(str(path)) as file:
            buffer = file.read_buffer()
    if sha256 is not None and hashlib.sha256(buffer).hexdigest() != sha256:
        raise DamagedProjectError("its checksum is wrong", where=str(path), hint="run 'melo verify'")
    return buffer


def reader_of(buffer: Any, path: Path) -> Any:
    """A reader of a mapped Arrow IPC file, which hands out record batches without a copy.

    Raises:
        DamagedProjectError: it is no Arrow file.
    """
    with damage(path):
        return ipc.open_file(buffer)


def open_batches(path: Path, size: int, *, sha256: str | None = None) -> Any:
    """Memory-map an Arrow IPC file and open it; see `mapped` and `reader_of`."""
    return reader_of(mapped(path, size, sha256=sha256), path)


def read_batch(reader: Any, at: int, schema: Any, path: Path) -> Any:
    """One record batch, checked in full.

    Raises:
        DamagedProjectError: it does not bear what it claims, or has other columns.
    """
    with damage(path):
        if not 0 <= at < reader.num_record_batches:
            raise ValueError(f"record batch {at} is missing")
        if not reader.schema.equals(schema):
            raise ValueError("the file has the wrong columns")
        batch = reader.get_batch(at)
        batch.validate(full=True)
        for field, column in zip(schema, batch.columns, strict=True):
            if not field.nullable and column.null_count:
                raise ValueError(f"column {field.name} has null values")
        return batch


def numbers(column: Any) -> NDArray[Any]:
    """A column of numbers as a view."""
    result: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return result


def valid(column: Any) -> NDArray[np.bool_]:
    """Which entries of a column are not null, bool [n]."""
    # pyarrow's own function for it lies in a module that takes long to import.
    bitmap = column.buffers()[0]
    if bitmap is None:
        return np.ones(len(column), np.bool_)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(np.bool_)


def filled(column: Any) -> NDArray[Any]:
    """A column of numbers, with 0 for null entries; a view if there are none."""
    if not column.null_count:
        return numbers(column)
    values = [None, column.buffers()[1]]  # without the bits that say which are empty
    here = numbers(pa.Array.from_buffers(column.type, len(column), values, 0, column.offset))
    return np.where(valid(column), here, here.dtype.type(0))


def ragged(column: Any) -> Ragged:
    """A list column as a view."""
    offsets = np.asarray(column.offsets.to_numpy(zero_copy_only=True), np.int64)
    return Ragged(numbers(column.values), offsets[:-1], np.diff(offsets))


def utc(microseconds: int) -> datetime:
    """The time that a timestamp column holds.

    Raises:
        ValueError, OverflowError: no such time.
    """
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def number_rows(rows: Sequence[NDArray[Any]], dtype: type[np.number[Any]] = np.float32) -> Any:
    """Arrays of any shape as a list column of one type of numbers, each flattened row by row."""
    offsets = np.cumsum([0, *(row.size for row in rows)], dtype=np.int64)
    flat = [np.ascontiguousarray(row, dtype).reshape(-1) for row in rows]
    values = np.concatenate(flat) if flat else np.empty(0, dtype)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
