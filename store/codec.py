"""The Arrow IPC files of a project: schemas, writing, and reading without a copy.

Files are uncompressed, so that keys and block slices are read as views of the memory-mapped file. What is
read is checked (schema, buffers against lengths, text) before it is used; a file that does not fit raises
`DamagedProjectError`, and a row count that the bytes do not bear allocates nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from store.clusters import Cluster
from store.deltas import ClusterDelta, ClusterRows, Ragged
from store.errors import DamagedProjectError, InvalidEditError
from store.fileio import Sink, Written, refusals, write_file
from store.records import JSON, KeyMap, LoraSlice, Vector

STATES = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("reverted", pa.bool_(), nullable=False),
        pa.field("superseded_by", pa.int64()),
    ]
)
BLOCKS = pa.schema(
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
CLUSTERS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("removed", pa.bool_(), nullable=False),
        pa.field("radius", pa.float64(), nullable=False),
        pa.field("spread", pa.float64(), nullable=False),
        pa.field("reach", pa.float64(), nullable=False),
        pa.field("members", pa.list_(pa.int64()), nullable=False),
        pa.field("label", pa.list_(pa.int64()), nullable=False),
        pa.field("center", pa.large_list(pa.float32()), nullable=False),
    ]
)
KEYMAPS = pa.schema(
    [
        pa.field("settings", pa.string(), nullable=False),
        pa.field("name", pa.list_(pa.string()), nullable=False),
        pa.field("shape", pa.list_(pa.list_(pa.int64())), nullable=False),
        pa.field("values", pa.list_(pa.large_list(pa.float32())), nullable=False),
    ]
)


def edits_schema(dim: int) -> Any:
    """The schema of an edits file whose keys have `dim` numbers; ``block`` is a block's running number."""
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
            pa.field("block", pa.int64()),
            pa.field("radius", pa.float64()),
            pa.field("metrics", pa.string(), nullable=False),
            pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("supersedes", pa.list_(pa.int64()), nullable=False),
        ]
    )


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn what a broken file makes the decoders raise into our own error.

    Arrow raises `OSError` too where a length in the file points past its end.

    Raises:
        DamagedProjectError: naming the file.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DamagedProjectError(
            f"this is not what melo wrote ({reason})", where=str(path), mend="run 'melo verify'"
        ) from error


def json_text(value: Mapping[str, Any]) -> str:
    """JSON for a mapping; a number that JSON has no word for (NaN, infinity) becomes null.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    try:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"metadata and metrics have to be JSON values ({error})") from error


def json_mapping(text: str) -> dict[str, JSON]:
    """The mapping in a JSON text.

    Raises:
        ValueError, RecursionError: it holds something else.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
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


def open_batches(path: Path, size: int, *, sha256: str | None = None) -> Any:
    """Memory-map an Arrow IPC file; the reader hands out record batches without a copy.

    Args:
        sha256: also read the whole file and hold it against this checksum.

    Raises:
        DamagedProjectError: the file is gone, or not of this size, or another one, or no Arrow file.
        StorageError: it may not be read.
    """
    if not path.is_file():
        raise DamagedProjectError("the file is missing", where=str(path), mend="run 'melo verify'")
    with refusals(path):
        found = path.stat().st_size
        if found != size:
            raise DamagedProjectError(
                f"the file has {found} bytes in place of {size}", where=str(path), mend="run 'melo verify'"
            )
        with pa.memory_map(str(path)) as file:
            buffer = file.read_buffer()
    if sha256 is not None and hashlib.sha256(buffer).hexdigest() != sha256:
        raise DamagedProjectError("its checksum does not fit", where=str(path), mend="run 'melo verify'")
    with damage(path):
        return ipc.open_file(buffer)


def read_batch(reader: Any, at: int, schema: Any, path: Path) -> Any:
    """One record batch, checked in full.

    Raises:
        DamagedProjectError: it does not bear what it claims, or has other columns.
    """
    with damage(path):
        if not 0 <= at < reader.num_record_batches:
            raise ValueError(f"there is no record batch {at}")
        if not reader.schema.equals(schema):
            raise ValueError("the columns are not those of such a file")
        batch = reader.get_batch(at)
        batch.validate(full=True)
        for field, column in zip(schema, batch.columns, strict=True):
            if not field.nullable and column.null_count:
                raise ValueError(f"column {field.name} has empty places")
        return batch


def key_column(keys: Sequence[Vector | None], dim: int) -> Any:
    """Keys as an Arrow column; places without a key are null. Without any key, `dim` is 0."""
    if dim == 0:
        return pa.nulls(len(keys), pa.list_(pa.float32(), 0))
    rows = np.zeros((len(keys), dim), np.float32)
    for at, key in enumerate(keys):
        if key is not None:
            rows[at] = key
    missing = pa.array([key is None for key in keys], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim, mask=missing)


def block_batch(number: int, slices: Mapping[str, LoraSlice]) -> Any:
    """The slices of one block as a record batch."""
    parts = [slices[module] for module in slices]
    columns = [
        pa.array([number] * len(parts), pa.int64()),
        pa.array(list(slices), pa.string()),
        pa.array([float(part.scale) for part in parts], pa.float64()),
        pa.array([part.A.shape[0] for part in parts], pa.int64()),
        pa.array([part.A.shape[1] for part in parts], pa.int64()),
        pa.array([part.B.shape[0] for part in parts], pa.int64()),
        _float_rows([part.A for part in parts]),
        _float_rows([part.B for part in parts]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=BLOCKS)


def block_slices(batch: Any, number: int, path: Path) -> dict[str, LoraSlice]:
    """The slices in a record batch, as read-only views of it.

    Raises:
        DamagedProjectError: another block, or shapes that do not fit.
    """
    with damage(path):
        if set(batch.column("block").to_pylist()) - {number}:
            raise ValueError(f"it holds another block than {number}")
        A, B = ragged(batch.column("A")), ragged(batch.column("B"))
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
            raise ValueError("a module stands in it twice")
        return slices


def cluster_batch(delta: ClusterDelta, version: int) -> Any:
    """A commit's changes of the clusters as a record batch."""
    gone = Cluster((0,), (), np.empty(0, np.float32), 0.0, 0.0, 0.0)
    rows = [*delta.put, *(gone for _ in delta.dropped)]
    own_key = [len(row.members) == 1 and row.spread == 0.0 for row in rows]
    columns = [
        pa.array([*(row.number for row in delta.put), *delta.dropped], pa.int64()),
        pa.array(delta.versions or [version] * len(rows), pa.int64()),
        pa.array([*(False for _ in delta.put), *(True for _ in delta.dropped)], pa.bool_()),
        pa.array([row.radius for row in rows], pa.float64()),
        pa.array([row.spread for row in rows], pa.float64()),
        pa.array([row.reach for row in rows], pa.float64()),
        pa.array([list(row.members) for row in rows], pa.list_(pa.int64())),
        pa.array([list(row.label) for row in rows], pa.list_(pa.int64())),
        _float_rows([row.center[:0] if own else row.center for row, own in zip(rows, own_key, strict=True)]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CLUSTERS)


def cluster_rows(batch: Any, edits: int, dim: int, path: Path) -> ClusterRows:
    """A clusters file as columns.

    Args:
        edits: how many edits there are; no member's number is higher.

    Raises:
        DamagedProjectError: a row contradicts itself.
    """
    with damage(path):
        columns = {
            name: numbers(batch.column(name)) for name in ("number", "version", "radius", "spread", "reach")
        }
        members, labels, centers = (ragged(batch.column(name)) for name in ("members", "label", "center"))
        removed = np.asarray(batch.column("removed").to_numpy(zero_copy_only=False), np.bool_)
        _check_clusters(columns, removed, members, centers, edits, dim)
        return ClusterRows(
            columns["number"],
            columns["version"],
            removed,
            columns["radius"],
            columns["spread"],
            columns["reach"],
            members,
            labels,
            centers,
        )


def states_batch(rows: Sequence[tuple[int, bool, int | None]]) -> Any:
    """Fates of edits as a record batch: number, whether reverted, by which newer edit superseded."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STATES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=STATES)


def key_map_batch(key_map: KeyMap) -> Any:
    """A key map as a record batch of one row.

    Raises:
        InvalidEditError: its settings are no JSON values.
    """
    try:
        settings = json.dumps(dict(key_map.settings), ensure_ascii=False, allow_nan=False)
        names = pa.array([list(key_map.arrays)], pa.list_(pa.string()))
        settings_column = pa.array([settings], pa.string())
    except (TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise InvalidEditError(f"the settings of a key map have to be JSON values ({error})") from error
    arrays = list(key_map.arrays.values())
    shapes = pa.array([[list(array.shape) for array in arrays]], pa.list_(pa.list_(pa.int64())))
    values = pa.ListArray.from_arrays(pa.array([0, len(arrays)], pa.int32()), _float_rows(arrays))
    return pa.RecordBatch.from_arrays([settings_column, names, shapes, values], schema=KEYMAPS)


def key_map(batch: Any, path: Path) -> KeyMap:
    """The key map in a record batch; its arrays are read-only views.

    Raises:
        DamagedProjectError: it contradicts itself.
    """
    with damage(path):
        if batch.num_rows != 1:
            raise ValueError(f"it holds {batch.num_rows} key maps")
        if any(batch.column(name).values.null_count for name in ("name", "shape", "values")):
            raise ValueError("an array has an empty place")
        names = batch.column("name")[0].as_py()
        shapes = batch.column("shape")[0].as_py()
        rows = ragged(batch.column("values")[0].values)
        if len(set(names)) != len(names) or not len(names) == len(shapes) == len(rows.starts):
            raise ValueError("its arrays do not fit their names")
        arrays = {
            name: cast("Vector", rows.row(at)).reshape(_shape(shape, int(rows.lengths[at])))
            for at, (name, shape) in enumerate(zip(names, shapes, strict=True))
        }
        return KeyMap(json_mapping(batch.column("settings")[0].as_py()), arrays)


def numbers(column: Any) -> NDArray[Any]:
    """A column of plain numbers as a view."""
    result: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return result


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


def _check_clusters(
    columns: Mapping[str, NDArray[Any]],
    removed: NDArray[np.bool_],
    members: Ragged,
    centers: Ragged,
    edits: int,
    dim: int,
) -> None:
    kept = ~removed
    if (members.lengths[kept] < 1).any():
        raise ValueError("a cluster has no members")
    if len(members.values) and (members.values.min() < 0 or members.values.max() > edits):
        raise ValueError("a cluster names an edit that is not there")
    if (members.values[members.starts[kept]] != columns["number"][kept]).any():
        raise ValueError("a cluster does not bear the number of its first member")
    if (columns["number"] < 1).any() or (columns["number"] > edits).any():
        raise ValueError("a cluster has a number that no edit has")
    if (columns["version"] < 0).any() or (columns["version"] >= 1 << 31).any():
        raise ValueError("a cluster has a version that no snapshot has")
    own_key = (members.lengths == 1) & (columns["spread"] == 0.0)
    if (centers.lengths[kept] != np.where(own_key, 0, dim)[kept]).any():
        raise ValueError("a cluster's center has another size than the keys")
    for name in ("radius", "spread", "reach"):
        if not (np.isfinite(columns[name]).all() and (columns[name] >= 0).all()):
            raise ValueError(f"a cluster's {name} is no distance")
    if not np.isfinite(centers.values).all():
        raise ValueError("a cluster's center is not finite")


def _shape(shape: list[int], size: int) -> list[int]:
    if any(each < 0 for each in shape) or math.prod(shape) != size:
        raise ValueError(f"an array of shape {shape} has {size} numbers")
    return shape


def _float_rows(rows: Sequence[NDArray[np.float32]]) -> Any:
    """Arrays of any shape as a list column, each flattened row by row."""
    offsets = np.cumsum([0, *(row.size for row in rows)], dtype=np.int64)
    flat = [np.ascontiguousarray(row, np.float32).reshape(-1) for row in rows]
    values = np.concatenate(flat) if flat else np.empty(0, np.float32)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
