"""An overview of a snapshot, from the small JSON files alone: its edits, keys and blocks are not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from melo_store.evaluation import last_evaluation
from melo_store.format import file_io, manifest
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.format.merge_plan import Merge, merges
from melo_store.records import EFFECTIVE_STATUSES, JSON, BaseReference, FileEntry, SnapshotInfo


class Source(Protocol):
    """A snapshot that was read."""

    @property
    def root(self) -> Path: ...

    @property
    def head(self) -> Head: ...

    @property
    def pointer(self) -> Pointer: ...

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def files(self) -> tuple[FileEntry, ...]: ...


class Overview:
    """A snapshot by its name, base, recipe, counts and history."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @classmethod
    def open(cls, path: str | Path, *, at: int | None = None) -> Overview:
        """Open the newest snapshot, or the one of number `at`.

        Raises:
            ProjectNotFoundError: there is no project at the path.
            FormatVersionError: it was written by a newer melo.
            DamagedProjectError: one of the JSON files is broken.
            UnknownEditError: there is no snapshot `at`.
        """
        root = Path(path)
        return cls(manifest.read_from(root, lambda head: _read(root, head, at)))

    @property
    def path(self) -> Path:
        return self._source.root

    @property
    def name(self) -> str:
        return self._source.head.name

    @property
    def base(self) -> BaseReference:
        return self._source.head.base

    @property
    def info(self) -> SnapshotInfo:
        return self._source.snapshot.info

    @property
    def snapshot(self) -> int:
        return self.info.number

    @property
    def recipe(self) -> Mapping[str, JSON]:
        """The resolved recipe of the latest commit."""
        return self.info.recipe

    @property
    def key_dim(self) -> int | None:
        """Size of a key; None before the first neuron."""
        return self._source.snapshot.key_dim

    @property
    def edit_counts(self) -> Mapping[str, int]:
        """How many edits there are of each of `EFFECTIVE_STATUSES`."""
        return {status: self.info.counts[status] for status in EFFECTIVE_STATUSES}

    def history(self) -> list[SnapshotInfo]:
        """All snapshots up to this one, oldest first."""
        every = manifest.history(self.path, self._source.head)
        return [info for info in every if info.number <= self.snapshot][::-1]

    def last_evaluation(self) -> Mapping[str, JSON] | None:
        """The figures of the last evaluation, as `melo eval --json` gives them; None before the first.

        Raises:
            DamagedProjectError: the file is broken.
        """
        return last_evaluation(self.path)

    def mergeable(self) -> list[Merge]:
        """What compaction would merge now; a snapshot that is not the newest is never compacted."""
        is_newest = self._source.pointer == self._source.head.newest
        return merges(self._source.files) if is_newest else []

    def size_bytes(self) -> int:
        """Bytes of all files of the project on the disk."""
        return file_io.size_on_disk(self.path)


@dataclass(frozen=True, slots=True)
class _Read:
    """A snapshot of which only the JSON files were read."""

    root: Path
    head: Head
    pointer: Pointer
    snapshot: Snapshot
    files: tuple[FileEntry, ...]


def _read(root: Path, head: Head, at: int | None) -> _Read:
    pointer, chain = manifest.find(root, head, at)
    return _Read(root, head, pointer, chain[0], manifest.all_files(chain))
