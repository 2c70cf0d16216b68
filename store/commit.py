"""The order of a commit: data files, their folders, the snapshot file, and the one rename.

Before ``manifest.json`` is replaced nothing has happened, after it everything has. What a broken-off commit
leaves behind has the names that the next one writes, and no snapshot names it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from store import codec, fileio, layout, manifest
from store.changes import Change, Note, batches, counts_after
from store.errors import StaleWriteError, StorageError
from store.manifest import Head, Snapshot
from store.records import FileEntry, SnapshotInfo
from store.state import State


def write_commit(state: State, change: Change, note: Note) -> tuple[Head, Snapshot, list[FileEntry]]:
    """Make a change the next snapshot; the caller holds the writer's lock.

    Returns:
        What ``manifest.json`` says now, the snapshot, and the data files that were written.

    Raises:
        StaleWriteError: the project has moved on since the change was worked out.
        InvalidEditError: the note holds what is no JSON value.
        StorageError: the file system refused; the project is as it was.
    """
    head = manifest.read_head(state.root)
    if change.parent != state.pointer.number or head.newest != state.pointer:
        raise StaleWriteError(
            f"this was staged over snapshot {change.parent}, and the newest is {head.newest.number}",
            where=str(state.root),
            mend="stage it again",
        )
    info = _info(state, change, note)
    manifest.require_json(info)
    try:
        return _write(state, head, change, info)
    except StorageError:
        _discard(state.root, info.number, head)
        raise


def _info(state: State, change: Change, note: Note) -> SnapshotInfo:
    return SnapshotInfo(
        number=state.pointer.number + 1,
        parent=change.parent,
        created_at=datetime.now(UTC),
        action=note.action,
        recipe=note.recipe,
        seed=note.seed,
        versions=note.versions,
        command=note.command,
        counts=counts_after(state, change),
        detail=note.detail,
    )


def _write(
    state: State, head: Head, change: Change, info: SnapshotInfo
) -> tuple[Head, Snapshot, list[FileEntry]]:
    complete = bool(change.replaces) or info.number % manifest.COMPLETE_EVERY == 0
    added = _write_files(state.root, info.number, change)
    kept = [entry for entry in state.files if entry.path not in change.replaces]
    files = (*kept, *added) if complete else tuple(added)
    snapshot = Snapshot(info, state.pointer, change.dim, complete, files)
    newest = replace(head, newest=manifest.write_snapshot(state.root, snapshot))
    manifest.write_head(state.root, newest)
    return newest, snapshot, added


def _write_files(root: Path, number: int, change: Change) -> list[FileEntry]:
    """Write the data files of a commit, and make them and their names durable."""
    entries = []
    for role, schema, parts, first, rows in batches(change, number):
        name = layout.data_name(role, number)
        fileio.make_folder((root / name).parent)
        written = codec.write_batches(root / name, schema, parts)
        fileio.sync_folder((root / name).parent)
        entries.append(FileEntry(name, written.size, written.sha256, role, first, rows))
    return entries


def _discard(root: Path, number: int, head: Head) -> None:
    """Give back the space of a commit that surely failed; what cannot be removed does no harm."""
    if manifest.read_head(root) != head:
        return
    names = [layout.snapshot_name(number), *(layout.data_name(role, number) for role in layout.ROLES)]
    for path in [*(root / name for name in names), layout.temporary(root / layout.MANIFEST)]:
        with suppress(StorageError):
            fileio.remove(path)
