"""Compact a project, drop old snapshots where asked, and remove every file that no kept snapshot needs.

Each step leaves a whole project: the compaction is a commit, dropping snapshots is one replaced manifest, and
only then are files removed. Broken off anywhere, the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melo_store.format import file_io, layout, manifest
from melo_store.format.documents import Pointer, Snapshot
from melo_store.format.merge_plan import Merge, merges
from melo_store.index import index_file, neuron_index
from melo_store.maintenance.compact import compact
from melo_store.project import Project
from melo_store.state import State
from melo_store.writer import Writer, open_writer


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that nothing needs.

    Attributes:
        path: relative to the project.
        size: bytes.
    """

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a garbage collection, or of its dry run.

    Attributes:
        merged: files that were merged into one for each role, in a snapshot of its own.
        dropped: how many snapshots are no longer kept.
        oldest: number of the oldest snapshot that is kept now.
        garbage: the files that were removed.
    """

    merged: tuple[Merge, ...]
    dropped: int
    oldest: int
    garbage: tuple[Garbage, ...]


def collect(
    root: Path,
    *,
    versions: Mapping[str, str],
    keep: int | None = None,
    dry_run: bool = False,
    command: str | None = None,
) -> Collected:
    """Merge many small files, keep the newest snapshots, and remove what is needed no more.

    Holds the writer's lock, so that no commit is under way. Files that melo would not have named so are left
    alone. Where the history cannot be read whole, nothing is changed. Whoever has a dropped snapshot open has
    to open the project again.

    Args:
        keep: how many of the newest snapshots to keep, the one that compaction makes counted; None keeps all.
        dry_run: change nothing, only say.

    Raises:
        ProjectLockedError: another process is writing.
        DamagedProjectError: a snapshot file is broken, so that it is not known what is needed.
        StorageError: the file system refused.
    """
    with open_writer(Project.open(root)) as writer:
        state = writer.state
        history = list(manifest.walk(root, state.head))
        merged = merges(state.files)
        before = state.head.oldest
        newest = state.pointer.number + bool(merged)
        oldest = before if keep is None else max(before, newest - keep + 1)
        needed = _needed(state, history, merged, oldest) | _needed_index(state, oldest)
        garbage = [
            Garbage(name, (root / name).stat().st_size) for name in sorted(_ours(root)) if name not in needed
        ]
        if not dry_run:
            _change(writer, oldest, versions, command)
            written = {entry.path for entry in writer.project.files()} | _needed_index(state, oldest)
            garbage = [each for each in garbage if each.path not in written]
            _remove(root, garbage)
        return Collected(tuple(merged), oldest - before, oldest, tuple(garbage))


def _change(writer: Writer, oldest: int, versions: Mapping[str, str], command: str | None) -> None:
    """Compact, and keep no snapshot that is older; the index is saved for one that stays."""
    compact(writer, versions=versions, command=command)
    state = writer.state
    record = index_file.read_record(state.root)
    if record is not None and record.number < oldest:
        state.save_index()
    if state.head.oldest < oldest:
        writer.keep_from(oldest)


def _remove(root: Path, garbage: Sequence[Garbage]) -> None:
    for each in garbage:
        file_io.remove(root / each.path)
    for folder in sorted({(root / each.path).parent for each in garbage}):
        file_io.sync_folder(folder)


def _needed(
    state: State, history: Sequence[tuple[Pointer, Snapshot]], merged: Sequence[Merge], oldest: int
) -> set[str]:
    """Every file that is there and that a kept snapshot names, once files are merged."""
    replaced = {entry.path for merge in merged for entry in merge.files}
    needed = {entry.path for entry in state.files} - replaced
    kept_head = replace(state.head, oldest=oldest)
    for pointer, snapshot in history if oldest <= state.pointer.number else ():
        needed.add(pointer.path)
        needed.update(entry.path for entry in snapshot.files)
        if not manifest.goes_on(kept_head, snapshot):
            break
    return needed


def _needed_index(state: State, oldest: int) -> set[str]:
    """The index files, unless they belong to a snapshot that goes."""
    record = index_file.read_record(state.root)
    if record is None or record.number >= oldest:
        return _index_files(state.root)
    in_use = state.edits.dim is not None and len(state.live()) >= neuron_index.GRAPH_FROM
    return {layout.INDEX_RECORD} if in_use else set()  # the record will name another file


def _index_files(root: Path) -> set[str]:
    record = index_file.read_record(root)
    return {layout.INDEX_RECORD} | ({record.path} if record is not None else set())


def _ours(root: Path) -> Iterator[str]:
    """The files that the store names, whole or in the making."""
    for folder in layout.FOLDERS:
        for path in (root / folder).glob("*"):
            name = f"{folder}/{path.name}"
            if path.is_file() and layout.is_ours(name.removesuffix(layout.TEMPORARY)):
                yield name
    for name in (layout.MANIFEST, layout.LOCK_HOLDER):
        if (root / (name + layout.TEMPORARY)).is_file():
            yield name + layout.TEMPORARY
