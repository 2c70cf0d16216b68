"""The edits of a project: one segment per commit, read from its memory-mapped file when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melo_store.clusters.rules import Floats, Neuron, Numbers
from melo_store.format import codec, layout
from melo_store.format.key_file import READ_FROM, KeyFile
from melo_store.format.tables.edits import key_column, schema_of, tokens_column
from melo_store.records import (
    ROUTING,
    STATUSES,
    EditRecord,
    FileEntry,
    Status,
    Tokens,
    Vector,
    block_id,
    edit_id,
)


class Segment:
    """The edits of one commit.

    Args:
        batch: a checked record batch with the columns of `melo_store.format.tables.edits`.
        first: the number of its first edit.
        path: what to name when something in it does not fit.

    Attributes:
        keys: all keys, as a view of the mapped file.
        key_rows: the same, for taking some rows.
        neurons: numbers of the edits that became neurons when they were committed.
        clustered: those of them that asked for a radius.
    """

    def __init__(self, batch: Any, first: int, path: Path) -> None:
        self.batch = batch
        self.first = first
        self.rows = int(batch.num_rows)
        self._path = path
        with codec.damage(path):
            expected = np.arange(first, first + self.rows)
            if not np.array_equal(codec.numbers(batch.column("number")), expected):
                raise ValueError("its edits have unexpected numbers")
            statuses = self.column("status")
            if set(statuses) - set(STATUSES):
                raise ValueError("an edit has an unknown status")
            keys = batch.column("key")
            self.dim = int(keys.type.list_size)
            flat = codec.numbers(keys.values)
            self.keys: Vector = flat.reshape(self.rows, self.dim)
            self.key_rows: Vector | KeyFile = self.keys
            self.radii: Floats = codec.filled(batch.column("radius"))
            self.blocks: Numbers = codec.filled(batch.column("block"))
            routing = np.fromiter((status in ROUTING for status in statuses), np.bool_, self.rows)
            is_neuron = codec.valid(keys) & routing
            self.neurons: Numbers = expected[is_neuron]
            self.clustered: Numbers = expected[is_neuron & codec.valid(batch.column("radius"))]
            self.width, self._tokens, self._token_ends = _tokens(batch)

    def tokens(self, row: int) -> Tokens | None:
        """The token vectors of an edit, as a view of the mapped file."""
        if not self.width:
            return None
        start, stop = self._token_ends[row : row + 2].tolist()
        return self._tokens[start:stop] if stop > start else None

    def neuron(self, row: int) -> Neuron:
        """The neuron of an edit that asked for a radius."""
        label = tuple(self.batch.column("label")[row].as_py())
        return Neuron(self.first + row, self.keys[row], label, float(self.radii[row]))

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        values: list[Any] = self.batch.column(name).to_pylist()
        return values

    def records(self, start: int, stop: int) -> Iterator[EditRecord]:
        """The rows from start to before stop."""
        part = self.batch.slice(start, stop - start)
        with codec.damage(self._path):
            times = part.column("created_at").view(pa.int64()).to_pylist()
            names = [name for name in part.schema.names if name not in ("key", "tokens", "created_at")]
            columns = [part.column(name).to_pylist() for name in names]
            has_key = codec.valid(part.column("key"))
            for at, values in enumerate(zip(*columns, strict=True)):
                key = self.keys[start + at] if has_key[at] else None
                row = dict(zip(names, values, strict=True))
                yield _record(row, key, self.tokens(start + at), codec.utc(times[at]))


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

    def tokens(self, number: int) -> Tokens | None:
        """The token vectors of an edit, as a view of the mapped file."""
        segment = self._segment(self._position(number))
        return segment.tokens(number - segment.first)

    def radii(self, numbers: Sequence[int] | Numbers) -> Floats:
        return cast("Floats", self._gather(numbers, "radii", np.float64, ()))

    def blocks(self, numbers: Sequence[int] | Numbers) -> Numbers:
        """Int64 [n], the numbers of the blocks that edits lead to; 0 for none."""
        return cast("Numbers", self._gather(numbers, "blocks", np.int64, ()))

    def neurons(self) -> Numbers:
        """Numbers of the edits that became neurons when they were committed, ascending."""
        return np.concatenate([np.empty(0, np.int64), *(segment.neurons for segment in self.segments())])

    def neuron(self, number: int) -> Neuron:
        """The neuron of an edit that asked for a radius."""
        segment = self._segment(self._position(number))
        return segment.neuron(number - segment.first)

    def is_clustered(self, number: int) -> bool:
        """Whether an edit became a neuron that asked for a radius."""
        return bool(np.isin(number, self._segment(self._position(number)).clustered))

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
    width = max(segment.width for segment in segments)
    schema = schema_of(dim, width)
    parts = {
        "key": [
            segment.batch.column("key") if segment.dim else key_column([None] * segment.rows, dim)
            for segment in segments
        ],
        "tokens": [
            segment.batch.column("tokens") if segment.width else tokens_column([None] * segment.rows, width)
            for segment in segments
        ],
    }
    columns = [
        pa.concat_arrays(parts[name]) if name in parts else joined_column(segments, name)
        for name in schema.names
    ]
    return Segment(pa.RecordBatch.from_arrays(columns, schema=schema), segments[0].first, path)


def joined_column(segments: Sequence[Segment], name: str) -> Any:
    """A column of all segments, one after the other."""
    return pa.concat_arrays([segment.batch.column(name) for segment in segments])


def open_segment(root: Path, entry: FileEntry, dim: int | None, width: int | None) -> Segment:
    """The segment in an edits file of a project whose keys and token vectors have these sizes.

    Raises:
        DamagedProjectError: the file is gone, cut or changed.
    """
    path = layout.inside(root, entry.path)
    buffer = codec.mapped(path, entry.size)
    reader = codec.reader_of(buffer, path)
    with codec.damage(path):
        size, token_size = _size(reader.schema, "key"), _size(reader.schema, "tokens")
        if size not in (0, dim) or token_size not in (0, width):
            raise ValueError("its keys or token vectors do not have the size of the project's")
        if reader.num_record_batches != 1:
            raise ValueError("it does not have exactly one record batch")
        batch = codec.read_batch(reader, 0, schema_of(size, token_size), path)
        if batch.num_rows != entry.rows:
            raise ValueError(f"it holds {batch.num_rows} edits instead of {entry.rows}")
    segment = Segment(batch, entry.first, path)
    if entry.size >= READ_FROM and segment.dim:
        segment.key_rows = KeyFile(path, segment.keys.ctypes.data - buffer.address, segment.dim)
    return segment


def _size(schema: Any, name: str) -> int:
    """How many numbers each vector in a column has; 0 where there is no such column."""
    at = schema.get_field_index(name)
    kind = schema.field(at).type if at >= 0 else None
    if kind is not None and pa.types.is_list(kind):
        kind = kind.value_type
    return kind.list_size if kind is not None and pa.types.is_fixed_size_list(kind) else 0


def _tokens(batch: Any) -> tuple[int, Tokens, Numbers]:
    """Size of a token vector, the vectors of all rows, and where those of each row begin [rows + 1]."""
    width = _size(batch.schema, "tokens")
    if not width:
        return 0, np.empty((0, 0), np.float16), np.empty(0, np.int64)
    column = batch.column("tokens")
    if column.values.null_count:
        raise ValueError("a token vector is null")
    ends = codec.numbers(column.offsets)
    return width, codec.numbers(column.values.values).reshape(-1, width), ends


def _record(
    row: dict[str, Any], key: Vector | None, tokens: Tokens | None, created_at: datetime
) -> EditRecord:
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
        tokens=tokens,
        block=None if row["block"] is None else block_id(row["block"]),
        radius=row["radius"],
        metrics=codec.json_mapping(row["metrics"]),
        created_at=created_at,
        supersedes=tuple(edit_id(number) for number in row["supersedes"]),
    )
