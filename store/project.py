"""A project as its users see it: a snapshot with its neurons, edits and blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from numpy.typing import ArrayLike

from melo_store import validation
from melo_store.clusters.rules import Cluster
from melo_store.errors import ProjectExistsError
from melo_store.format import documents, file_io, layout, lock, manifest
from melo_store.format.documents import Head, Snapshot
from melo_store.index.nearest_neighbours import neighbours
from melo_store.overview import Overview
from melo_store.records import (
    EFFECTIVE_STATUSES,
    JSON,
    BaseReference,
    Block,
    EditView,
    EffectiveStatus,
    FileEntry,
    KeyMap,
    Neighbour,
    SnapshotInfo,
    Tokens,
    Vector,
    block_id,
    edit_id,
)
from melo_store.state import State


class Project(Overview):
    """One snapshot of a project. Later commits do not change it, and reading it never waits for a writer."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._state = state

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        name: str,
        base: BaseReference,
        recipe: Mapping[str, JSON],
        seed: int,
        versions: Mapping[str, str],
        command: str | None = None,
    ) -> Project:
        """Make an empty project: snapshot 0.

        Raises:
            ProjectExistsError: there is a project, or a folder with other things in it.
            StorageError: the file system refused.
        """
        root = Path(path)
        _require_free(root)
        info = SnapshotInfo(
            number=0,
            parent=None,
            created_at=datetime.now(UTC),
            action="create",
            recipe=recipe,
            seed=seed,
            versions=versions,
            command=command,
            counts=dict.fromkeys(("edits", *EFFECTIVE_STATUSES, "blocks", "clusters"), 0),
            detail={},
        )
        first = Snapshot(info, parent=None, key_dim=None, token_width=None, complete=True, files=())
        documents.require_json(info)
        for folder in layout.FOLDERS:
            file_io.make_folder(root / folder)
        with lock.writing(root, 0.0):
            pointer = manifest.write_snapshot(root, first)
            manifest.write_head(root, Head(name, base, pointer, oldest=0))
        return cls.open(root)

    @classmethod
    def open(cls, path: str | Path, *, at: int | None = None) -> Project:
        """Open the newest snapshot, or the one of number `at`.

        Raises:
            ProjectNotFoundError: there is no project at the path.
            FormatVersionError: it was written by a newer melo.
            DamagedProjectError: a file that is needed for opening is broken.
            UnknownEditError: there is no snapshot `at`.
        """
        return cls(State.load(Path(path), at))

    @classmethod
    def remove_empty(cls, path: str | Path) -> None:
        """Remove a project that has never had an edit.

        Raises:
            ProjectExistsError: it has edits.
            ProjectLockedError: another process writes in it.
        """
        root = Path(path)
        with lock.writing(root, 0.0):
            if cls.open(root).edits():
                raise ProjectExistsError("the project has edits", where=str(root))
        file_io.remove_folder(root, root.with_name(f"{root.name}.removed-{os.getpid()}"))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a project at the path, whole or not."""
        return (Path(path) / layout.MANIFEST).is_file()

    @property
    def key_map(self) -> KeyMap | None:
        """How a pooled hidden state becomes a key, where calibration has learnt it; read anew each time.

        Raises:
            DamagedProjectError: its file is broken.
        """
        return self._state.key_map()

    def edits(self) -> list[EditView]:
        """All edits, oldest first; keys are views of the memory-mapped files."""
        return [
            self._state.view(record)
            for segment in self._state.edits.segments()
            for record in segment.records(0, segment.rows)
        ]

    def statuses(self) -> dict[str, EffectiveStatus]:
        """The status of every edit by its id, oldest first."""
        return {
            edit_id(number): self._state.edit_statuses.of(number, committed)
            for segment in self._state.edits.segments()
            for number, committed in enumerate(segment.column("status"), segment.first)
        }

    def live_subjects(self) -> dict[str, str]:
        """The subject of every live edit that has one, by the edit's id, oldest first."""
        return {
            edit_id(number): subject
            for segment in self._state.edits.segments()
            for number, (committed, subject) in enumerate(
                zip(segment.column("status"), segment.column("subject"), strict=True), segment.first
            )
            if subject is not None and self._state.edit_statuses.of(number, committed) == "live"
        }

    def edit(self, name: str) -> EditView:
        """The edit of an id such as ``e000001``.

        Raises:
            UnknownEditError: there is none.
        """
        return self._state.view(self._state.edits.record(validation.known_edit(self._state, name)))

    def block_ids(self) -> list[str]:
        """The ids of all blocks, oldest first."""
        return [block_id(number) for number in self._state.block_numbers()]

    def block(self, name: str) -> Block:
        """The block of an id such as ``b000001``: read-only views of the memory-mapped file.

        Raises:
            UnknownEditError: there is none.
            DamagedProjectError: its file is broken.
        """
        return self._state.block(name)

    def clusters(self) -> list[Cluster]:
        """All clusters, oldest first; members are edit numbers."""
        clusters = self._state.clusters
        return sorted(clusters.clusters(), key=lambda cluster: cluster.number) if clusters is not None else []

    def nearest(self, keys: ArrayLike, k: int = 8) -> list[list[Neighbour]]:
        """For each key float32 [n, d] the `k` nearest live neurons, the nearest first.

        Of neurons equally near the newest comes first. Where fewer than `k` are live, all are given.
        Distances are exact, and so is which neurons are the nearest, below `neuron_index.GRAPH_FROM` live
        ones; from there on the HNSW graph finds 99 in 100 of the eight nearest and more. Which of them fires
        is the caller's rule; the first whose `center_distance` is at most its `radius` is the paper's.

        Raises:
            KeyShapeError: the keys have another size than those of the project, or are not finite.
        """
        points = validation.key_rows(keys, self.key_dim)
        if self.key_dim is None:
            return [[] for _ in points]
        state = self._state
        return neighbours(state.index, state.edits, state.clusters, points, k)

    def tokens(self, edit_ids: Iterable[str]) -> list[Tokens | None]:
        """The token vectors float16 [n, width] of edits, read-only views of the memory-mapped files.

        None stands where an edit was committed without any.

        Raises:
            UnknownEditError: there is no such edit.
            DamagedProjectError: its file is broken.
        """
        return [self._state.edits.tokens(validation.known_edit(self._state, name)) for name in edit_ids]

    def keys(self, edit_ids: Iterable[str]) -> Vector:
        """The keys float32 [n, d] of edits that are neurons.

        Raises:
            UnknownEditError: there is no such edit.
        """
        return self._state.edits.keys([validation.known_edit(self._state, name) for name in edit_ids])

    def prompts(self, edit_ids: Iterable[str]) -> list[str]:
        """The prompts of edits.

        Raises:
            UnknownEditError: there is no such edit.
        """
        return [self._state.edits.prompt(validation.known_edit(self._state, name)) for name in edit_ids]

    def files(self) -> list[FileEntry]:
        """The files that make up this snapshot."""
        return [self._state.pointer.entry(), *self._state.files]

    def copy_to(self, folder: Path) -> None:
        """Write this snapshot alone to a new folder, as a project that knows nothing of what came before.

        Raises:
            StorageError: the file system refused.
        """
        pointer, chain = manifest.find(self.path, self._state.head, self.snapshot)
        names = [entry.path for entry in self._state.files]
        names += [layout.snapshot_name(snapshot.info.number) for snapshot in chain]
        for part in layout.FOLDERS:
            file_io.make_folder(folder / part)
        for name in names:
            file_io.copy(layout.inside(self.path, name), folder / name)
        oldest = chain[-1].info.number
        manifest.write_head(folder, replace(self._state.head, newest=pointer, oldest=oldest))


def _require_free(root: Path) -> None:
    """Refuse a folder that holds a project or other files, except those of an interrupted `create`."""
    if (root / layout.MANIFEST).exists():
        raise ProjectExistsError(
            "the folder holds a project already", where=str(root), hint="choose another folder"
        )
    ours = {*layout.FOLDERS, layout.LOCK, layout.LOCK_HOLDER}
    with file_io.refusals(root):
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    others = [name for name in names if name.removesuffix(layout.TEMPORARY) not in {*ours, layout.MANIFEST}]
    if others or (root.exists() and not root.is_dir()):
        raise ProjectExistsError(
            f"the folder is not empty{f' ({others[0]} is in it)' if others else ''}",
            where=str(root),
            hint="choose another folder",
        )
