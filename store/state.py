"""One snapshot of a project in memory: its edits, what became of them, its index, clusters and blocks."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from melo_store.clusters.cluster_set import ClusterSet
from melo_store.clusters.delta import ClusterRows, ClusterTable
from melo_store.clusters.rules import Numbers, distances
from melo_store.edit_status import NO_STATUSES, EditStatuses, EditStatusRow
from melo_store.errors import ProjectError, ProjectLockedError, StorageError, StoreWarning, UnknownEditError
from melo_store.format import codec, layout, lock, manifest
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.format.merge_plan import of_role
from melo_store.format.segments import Edits, open_segment
from melo_store.format.tables import blocks, clusters, keymaps, states
from melo_store.index import index_file, neuron_index
from melo_store.index.neuron_index import NeuronIndex
from melo_store.records import (
    Block,
    ClusterInfo,
    EditRecord,
    EditView,
    EffectiveStatus,
    FileEntry,
    KeyMap,
    block_id,
    edit_id,
    number_of,
)


class State:
    """A snapshot that was read from the disk. It never changes; a writer's commit makes the next one of it.

    Args:
        chain: the snapshot and those before it, back to a complete one.
        on_trouble: called with a line when the saved index cannot be used; without it there is a warning, and
            an index that was built or has grown is saved.

    Attributes:
        unsaved: the index holds more than the saved one.
        writing: the writer's lock is held, and the index is saved when it is given back.
    """

    def __init__(
        self,
        root: Path,
        head: Head,
        pointer: Pointer,
        chain: list[Snapshot],
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self.root = root
        self.head = head
        self.pointer = pointer
        self.snapshot = chain[0]
        self.writing = False
        self._on_trouble = on_trouble
        self._read(manifest.all_files(chain))

    @classmethod
    def load(cls, root: Path, at: int | None = None) -> State:
        """Read a snapshot.

        Raises:
            ProjectNotFoundError, FormatVersionError, DamagedProjectError, UnknownEditError: see `manifest`.
        """
        return manifest.read_from(root, lambda head: cls(root, head, *manifest.find(root, head, at)))

    def _read(self, files: tuple[FileEntry, ...]) -> None:
        """Take in everything that the files of the snapshot hold; edits, keys and blocks when asked for."""
        root, dim, width = self.root, self.snapshot.key_dim, self.snapshot.token_width
        self.files = files
        self.unsaved = False
        self._index: NeuronIndex | None = None
        self.edits = Edits(dim, [_source(root, entry, dim, width) for entry in self.entries("edits")])
        self.edit_statuses = read_edit_statuses(root, files)
        self._block_files = self.entries("blocks")
        self._readers: dict[str, tuple[Any, Path]] = {}
        self.clusters: ClusterSet | None = None
        if dim is not None:
            rows = _read_clusters(root, files, self.edits.count, dim)
            self.clusters = ClusterSet(dim, self.edits, ClusterTable(rows))

    def with_head(self, head: Head) -> State:
        """The same snapshot of a project whose head says something else."""
        same = copy(self)
        same.head = head
        return same

    def rewritten(self, head: Head, snapshot: Snapshot) -> State:
        """The snapshot that was just committed and wrote files anew."""
        following = copy(self)
        following.head, following.pointer, following.snapshot = head, head.newest, snapshot
        following._read(snapshot.files)
        return following

    def followed_by(
        self, head: Head, snapshot: Snapshot, added: Sequence[FileEntry], clusters: ClusterSet | None
    ) -> State:
        """The snapshot that was just committed and adds files, and has these clusters.

        It takes over the index, whose graph holds one set of neurons at a time; this one would load its own.
        """
        following = copy(self)
        following.head, following.pointer, following.snapshot = head, head.newest, snapshot
        following.files = (*self.files, *added)
        following.clusters = clusters
        dim = snapshot.key_dim
        for entry in added:
            if entry.role == "edits":
                first, rows, opener = _source(self.root, entry, dim, snapshot.token_width)
                following.edits = following.edits.with_segment(first, rows, opener, dim)
            if entry.role == "blocks":
                following._block_files = [*following._block_files, entry]
            if entry.role == "states":
                following.edit_statuses = following.edit_statuses.changed(_status_rows(self.root, entry))
        if self._index is not None:
            following._index = self._index.over(following.live(), following.edits.keys)
            following.unsaved |= following._index.flush()
            self._index = None
        return following

    def live(self) -> Numbers:
        """The neurons that answer, ascending."""
        return self.edit_statuses.live(self.edits.neurons())

    @property
    def index(self) -> NeuronIndex:
        """The index of the live neurons; of a snapshot that has keys."""
        if self._index is None:
            self._index, trouble = self._load_index()
            self._report_index_trouble(trouble)
        return self._index

    def entries(self, role: str) -> list[FileEntry]:
        """The files of a role in the order of what they hold."""
        return of_role(self.files, role)

    def paths(self, *roles: str) -> frozenset[str]:
        """The files of some roles by name."""
        return frozenset(entry.path for entry in self.files if entry.role in roles)

    def require_whole(self, entries: Iterable[FileEntry]) -> None:
        """Hold files against their checksums, before what they say is written anew.

        Raises:
            DamagedProjectError: naming the first that is broken.
        """
        for entry in entries:
            codec.open_batches(layout.inside(self.root, entry.path), entry.size, sha256=entry.sha256)

    def block_numbers(self) -> list[int]:
        """The numbers of all blocks; those that a repair could not save are not among them."""
        return [number for entry in self._block_files for number in _range(entry)]

    def block_count(self) -> int:
        """How many blocks there are; also the highest number."""
        return self._block_files[-1].first + self._block_files[-1].rows - 1 if self._block_files else 0

    def block(self, name: str) -> Block:
        """A block, as views of its memory-mapped file.

        Raises:
            UnknownEditError: there is no such block.
            DamagedProjectError: its file is broken.
        """
        number = number_of(name, "b")
        batch, path = self.block_batch(number)
        return Block(block_id(number), blocks.decode(batch, number, path))

    def block_batch(self, number: int) -> tuple[Any, Path]:
        """A block's record batch, and the file that it stands in.

        Raises:
            UnknownEditError, DamagedProjectError: as `block`.
        """
        at = bisect_right(self._block_files, number, key=lambda each: each.first) - 1
        entry = self._block_files[at] if at >= 0 else None
        if entry is None or number not in _range(entry):
            raise UnknownEditError(
                f"the project has no block {block_id(number)}",
                where=str(self.root),
                hint=f"it has {self.block_count()} blocks",
            )
        if entry.path not in self._readers:
            path = layout.inside(self.root, entry.path)
            self._readers[entry.path] = codec.open_batches(path, entry.size), path
        reader, path = self._readers[entry.path]
        return blocks.read(reader, number - entry.first, path), path

    def key_map_entry(self) -> FileEntry | None:
        """The file of the key map in force."""
        return next((entry for entry in reversed(self.files) if entry.role == "keymaps"), None)

    def key_map(self) -> KeyMap | None:
        """The key map in force, as views of its memory-mapped file.

        Raises:
            DamagedProjectError: its file is broken.
        """
        entry = self.key_map_entry()
        if entry is None:
            return None
        batch, path = _read_whole(self.root, entry, keymaps.SCHEMA)
        return keymaps.decode(batch, path)

    def status(self, number: int) -> EffectiveStatus:
        """The effective status of an edit."""
        return self.edit_statuses.of(number, self.edits.status(number))

    def view(self, record: EditRecord) -> EditView:
        """An edit as this snapshot sees it."""
        number = number_of(record.edit_id, "e")
        by = self.edit_statuses.superseded.get(number)
        status = self.edit_statuses.of(number, record.status)
        return EditView(
            record,
            status,
            None if by is None else edit_id(by),
            self._cluster_info(number),
        )

    def snapshot_sha256(self, number: int) -> str | None:
        """Checksum of the snapshot file of a number in this project's history; None where there is none."""
        for pointer, _ in manifest.walk(self.root, self.head):
            if pointer.number <= number:
                return pointer.sha256 if pointer.number == number else None
        return None

    def keep_index(self) -> None:
        """Save the index if many edits are new to the saved one; see `save_index`."""
        with _no_failure():
            record = index_file.read_record(self.root)
            known = record.edits if record is not None and record.keys == self._keys_name() else 0
            if self.unsaved or self.edits.count - known >= neuron_index.GRAPH_FROM:
                self._save_index()

    def save_index(self) -> None:
        """Save the index, once it is more than a matrix; the caller holds the writer's lock.

        A cache that cannot be saved is no failure of the work: that is a `StoreWarning`.
        """
        with _no_failure():
            self._save_index()

    def _save_index(self) -> None:
        if self.edits.dim is None:
            return
        if self._index is None:
            self._index, _ = self._load_index()
        graph = self._index.graph
        if graph is not None:
            number, sha256 = self.pointer.number, self.pointer.sha256
            index_file.save(self.root, graph, self._keys_name(), number, sha256, self.edits.count)
        self.unsaved = False

    def _keys_name(self) -> str:
        """What says which keys the neurons have; see `index_file.IndexRecord`."""
        entry = self.key_map_entry()
        return entry.path if entry is not None else ""

    def _load_index(self) -> tuple[NeuronIndex, str | None]:
        """The index, and why the saved one could not be used."""
        dim, live = self.edits.dim, self.live()
        assert dim is not None, "a snapshot that has keys"
        graph, trouble = None, None
        if len(live) >= neuron_index.GRAPH_FROM:
            graph, trouble = index_file.load(self.root, dim, self._keys_name(), self.snapshot_sha256)
        made = NeuronIndex(dim, live, self.edits.keys, graph)
        self.unsaved = made.flush()
        return made, trouble

    def _report_index_trouble(self, trouble: str | None) -> None:
        """Say what is wrong with the saved index, and save one that was built or has grown."""
        if self._on_trouble is not None:
            if trouble is not None:
                self._on_trouble(trouble)
            return
        if not self._is_newest():
            return  # that no graph is kept for a snapshot of the past is no trouble
        if trouble is not None and not (self.writing and trouble == index_file.MISSING):
            where = self.root / layout.INDEX
            warnings.warn(
                f"{where}: {trouble}; the index was rebuilt from the keys", StoreWarning, stacklevel=2
            )
        if self.unsaved and not self.writing:  # what is only read can do without
            with suppress(ProjectLockedError, StorageError), lock.writing(self.root, 0.0):
                if self._is_newest():
                    self.save_index()

    def _is_newest(self) -> bool:
        """Whether no commit has come since, of another process either."""
        with suppress(ProjectError):
            return manifest.read_head(self.root).newest == self.pointer
        return False

    def _cluster_info(self, number: int) -> ClusterInfo | None:
        if self.clusters is None or number not in self.clusters.owners:
            return None
        cluster = self.clusters.holder(number)
        to_center = distances(self.edits.keys([number]), cluster.center)
        members = tuple(edit_id(member) for member in cluster.members)
        return ClusterInfo(cluster.number, cluster.radius, float(to_center[0]), members)


@contextmanager
def _no_failure() -> Iterator[None]:
    try:
        yield
    except ProjectError as error:
        warnings.warn(f"the index could not be saved ({error})", StoreWarning, stacklevel=4)


def _range(entry: FileEntry) -> range:
    """The numbers of the edits or blocks in a file."""
    return range(entry.first, entry.first + entry.rows)


def _source(root: Path, entry: FileEntry, dim: int | None, width: int | None) -> Any:
    return entry.first, entry.rows, partial(open_segment, root, entry, dim, width)


def _read_whole(root: Path, entry: FileEntry, schema: Any) -> tuple[Any, Path]:
    """The one record batch of a small file, checksum included."""
    path = layout.inside(root, entry.path)
    reader = codec.open_batches(path, entry.size, sha256=entry.sha256)
    return codec.read_batch(reader, 0, schema, path), path


def _read_clusters(root: Path, files: Iterable[FileEntry], edits: int, dim: int) -> list[ClusterRows]:
    parts = (_read_whole(root, entry, clusters.SCHEMA) for entry in files if entry.role == "clusters")
    return [clusters.decode(batch, edits, dim, path) for batch, path in parts]


def _status_rows(root: Path, entry: FileEntry) -> list[EditStatusRow]:
    batch, _ = _read_whole(root, entry, states.SCHEMA)
    columns = (batch.column(name).to_pylist() for name in ("number", "reverted", "superseded_by"))
    return list(zip(*columns, strict=True))


def read_edit_statuses(root: Path, files: Iterable[FileEntry]) -> EditStatuses:
    """What became of edits, as the states files of a snapshot say, oldest first.

    Raises:
        DamagedProjectError: one of them is broken.
    """
    rows = (row for entry in files if entry.role == "states" for row in _status_rows(root, entry))
    return NO_STATUSES.changed(rows)
