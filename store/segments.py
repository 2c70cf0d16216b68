"""The edits of a project: one segment per commit, read from its memory-mapped file when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store import codec, layout
from store.clusters import Floats, Neuron, Numbers
from store.key_file import READ_FROM, KeyFile
from store.records import ROUTING, STATUSES, EditRecord, FileEntry, Status, Vector, block_id, edit_id
from store.tables.edits import key_column, schema_of


class Segment:
    """The edits of one commit.

    Args:
        batch: a checked record batch with the columns of `store.tables.edits`.
        first: the number of its first edit.
        path: what to name when something in it does not fit.

    Attributes:
        keys: all keys, as a view of the mapped file.
        key_rows: the same, for taking some rows.
    """

    def __init__(self, batch: Any, first: int, path: Path) -> None:
        self.batch = batch
        self.first = first
        self.rows = int(batch.num_rows)
        self._path = path
        with codec.damage(path):
            expected = np.arange(first, first + self.rows)
            if not np.array_equal(codec.numbers(batch.column("number")), expected):
                raise ValueError("the edits in it have other numbers")
            if set(self.column("status")) - set(STATUSES):
                raise ValueError("an edit has an unknown status")
            keys = batch.column("key")
            self.dim = int(keys.type.list_size)
            flat = codec.numbers(keys.values)
            self.keys: Vector = flat.reshape(self.rows, self.dim)
            self.key_rows: Vector | KeyFile = self.keys
            self.radii: Floats = codec.filled(batch.column("radius"))
            self.blocks: Numbers = codec.filled(batch.column("block"))

    def neuron(self, row: int) -> Neuron:
        """The neuron of an edit that has one."""
        label = tuple(self.batch.column("label")[row].as_py())
        return Neuron(self.first + row, self.keys[row], label, float(self.radii[row]))

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        values: list[Any] = self.batch.column(name).to_pylist()
        return values

    def neurons(self) -> list[int]:
        """Numbers of the edits that became neurons when they were committed."""
        has_key = codec.valid(self.batch.column("key"))
        statuses = self.column("status")
        return [self.first + row for row in range(self.rows) if has_key[row] and statuses[row] in ROUTING]

    def records(self, start: int, stop: int) -> Iterator[EditRecord]:
        """The rows from start to before stop."""
        part = self.batch.slice(start, stop - start)
        with codec.damage(self._path):
            times = part.column("created_at").view(pa.int64()).to_pylist()
            names = [name for name in part.schema.names if name not in ("key", "created_at")]
            columns = [part.column(name).to_pylist() for name in names]
            has_key = codec.valid(part.column("key"))
            for at, values in enumerate(zip(*columns, strict=True)):
                key = self.keys[start + at] if has_key[at] else None
                yield _record(dict(zip(names, values, strict=True)), key, codec.utc(times[at]))


class Edits:
    """All edits that a snapshot sees, by number; a segment is opened when something in it is asked for."""

    def __init__(
        self, dim: int | None, sources: Sequence[tuple[int, int, Callable[[], Segment]]] = ()
    ) -> None:
        self.dim = dim
        self._firsts: Numbers = np.array([first for first, _, _ in sources], np.int64)
        self._rows = [rows for _, rows, _ in sources]
        self._open = [opener for _, _, opener in sources]
        self._loaded: dict[int, Segment] = {}

    @property
    def count(self) -> int:
        """How many edits there are; also the highest number."""
        return int(self._firsts[-1]) + self._rows[-1] - 1 if self._rows else 0

    def with_segment(self, first: int, rows: int, opener: Callable[[], Segment], dim: int | None) -> Edits:
        """These edits and those of one more segment."""
        longer = Edits(dim)
        longer._firsts = np.append(self._firsts, first)
        longer._rows = [*self._rows, rows]
        longer._open = [*self._open, opener]
        longer._loaded = dict(self._loaded)
        return longer

    def keys(self, numbers: Sequence[int] | Numbers) -> Vector:
        return cast("Vector", self._gather(numbers, "key_rows", np.float32, (self.dim or 0,)))

    def radii(self, numbers: Sequence[int] | Numbers) -> Floats:
        return cast("Floats", self._gather(numbers, "radii", np.float64, ()))

    def blocks(self, numbers: Sequence[int] | Numbers) -> Numbers:
        """Int64 [n], the numbers of the blocks that edits lead to; 0 for none."""
        return cast("Numbers", self._gather(numbers, "blocks", np.int64, ()))

    def neuron(self, number: int) -> Neuron:
        segment = self._segment(self._position(number))
        return segment.neuron(number - segment.first)

    def status(self, number: int) -> str:
        """The status that an edit was committed with."""
        segment = self._segment(self._position(number))
        return str(segment.batch.column("status")[number - segment.first])

    def prompt(self, number: int) -> str:
        segment = self._segment(self._position(number))
        return str(segment.batch.column("prompt")[number - segment.first])

    def record(self, number: int) -> EditRecord:
        """The row of one edit."""
        segment = self._segment(self._position(number))
        row = number - segment.first
        return next(segment.records(row, row + 1))

    def segments(self) -> Iterator[Segment]:
        """Every segment, oldest first."""
        return (self._segment(at) for at in range(len(self._firsts)))

    def _gather(
        self, numbers: Sequence[int] | Numbers, column: str, dtype: type[np.generic], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        wanted = np.asarray(numbers, np.int64)
        if len(wanted) == 1:
            segment = self._segment(self._position(int(wanted[0])))
            row = int(wanted[0]) - segment.first
            one: NDArray[Any] = getattr(segment, column)[row : row + 1]
            return one
        result = np.empty((len(wanted), *shape), dtype)
        positions = self._firsts.searchsorted(wanted, side="right") - 1
        for at in set(positions.tolist()):
            here = positions == at
            segment = self._segment(at)
            result[here] = getattr(segment, column)[wanted[here] - segment.first]
        return result

    def _position(self, number: int) -> int:
        return int(self._firsts.searchsorted(number, side="right")) - 1

    def _segment(self, at: int) -> Segment:
        if at not in self._loaded:
            self._loaded[at] = self._open[at]()
        return self._loaded[at]


def joined(segments: Sequence[Segment], path: Path) -> Segment:
    """Segments that follow each other as one."""
    dim = max(segment.dim for segment in segments)
    schema = schema_of(dim)
    keys = [
        segment.batch.column("key") if segment.dim else key_column([None] * segment.rows, dim)
        for segment in segments
    ]
    columns = [
        pa.concat_arrays(keys) if name == "key" else joined_column(segments, name) for name in schema.names
    ]
    return Segment(pa.RecordBatch.from_arrays(columns, schema=schema), segments[0].first, path)


def joined_column(segments: Sequence[Segment], name: str) -> Any:
    """A column of all segments, one after the other."""
    return pa.concat_arrays([segment.batch.column(name) for segment in segments])


def open_segment(root: Path, entry: FileEntry, dim: int | None) -> Segment:
    """The segment in an edits file of a project.

    Raises:
        DamagedProjectError: the file is gone, cut or changed.
    """
    path = layout.inside(root, entry.path)
    buffer = codec.mapped(path, entry.size)
    reader = codec.reader_of(buffer, path)
    with codec.damage(path):
        found = reader.schema.field("key").type
        size = found.list_size if pa.types.is_fixed_size_list(found) else -1
        if size not in (0, dim):
            raise ValueError("its keys have another size than those of the project")
        if reader.num_record_batches != 1:
            raise ValueError("an edits file has one record batch")
        batch = codec.read_batch(reader, 0, schema_of(size), path)
        if batch.num_rows != entry.rows:
            raise ValueError(f"it holds {batch.num_rows} edits in place of {entry.rows}")
    segment = Segment(batch, entry.first, path)
    if entry.size >= READ_FROM and segment.dim:
        segment.key_rows = KeyFile(path, segment.keys.ctypes.data - buffer.address, segment.dim)
    return segment


def _record(row: dict[str, Any], key: Vector | None, created_at: datetime) -> EditRecord:
    return EditRecord(
        edit_id=edit_id(row["number"]),
        prompt=row["prompt"],
        target=row["target"],
        rephrases=tuple(row["rephrases"]),
        locality=tuple((pair["prompt"], pair["answer"]) for pair in row["locality"]),
        subject=row["subject"],
        metadata=codec.json_mapping(row["metadata"]),
        status=cast("Status", row["status"]),
        label=tuple(row["label"]),
        key=key,
        block=None if row["block"] is None else block_id(row["block"]),
        radius=row["radius"],
        metrics=codec.json_mapping(row["metrics"]),
        created_at=created_at,
        supersedes=tuple(edit_id(number) for number in row["supersedes"]),
    )
