"""The order of a commit: data files, their folders, the snapshot file, and the one rename.

Before ``manifest.json`` is replaced nothing has happened, after it everything has. What a broken-off commit
leaves behind has the names that the next one writes, and no snapshot names it.

The same rename brings a project of an older format to the present one: an older melo, which would misread
what is new, refuses it from then on, and until then it reads all that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from melo_store.commits.commit_delta import CommitDelta, CommitMetadata, batches
from melo_store.errors import StaleWriteError, StorageError
from melo_store.format import codec, documents, file_io, layout, manifest
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.records import FileEntry, SnapshotInfo


def write_commit(
    root: Path, pointer: Pointer, files: Sequence[FileEntry], change: CommitDelta, metadata: CommitMetadata
) -> tuple[Head, Snapshot, list[FileEntry]]:
    """Make a change the next snapshot; the caller holds the writer's lock.

    Args:
        pointer: the snapshot that the change was worked out over.
        files: its data files.

    Returns:
        What ``manifest.json`` says now, the snapshot, and the data files that were written.

    Raises:
        StaleWriteError: the project has moved on since the change was worked out.
        InvalidEditError: the note holds what is no JSON value.
        StorageError: the file system refused; the project is as it was.
    """
    head = manifest.read_head(root)
    if change.parent != pointer.number or head.newest != pointer:
        raise StaleWriteError(
            f"these edits were staged over snapshot {change.parent}, but the newest snapshot is "
            f"{head.newest.number}",
            where=str(root),
            hint="stage the edits again",
        )
    info = _info(change, metadata)
    documents.require_json(info)
    try:
        return _write(root, head, files, change, info)
    except StorageError:
        _discard(root, info.number, head)
        raise


def _info(change: CommitDelta, metadata: CommitMetadata) -> SnapshotInfo:
    return SnapshotInfo(
        number=change.parent + 1,
        parent=change.parent,
        created_at=datetime.now(UTC),
        action=metadata.action,
        recipe=metadata.recipe,
        seed=metadata.seed,
        versions=metadata.versions,
        command=metadata.command,
        counts=change.counts,
        detail=metadata.detail,
    )


def _write(
    root: Path, head: Head, files: Sequence[FileEntry], change: CommitDelta, info: SnapshotInfo
) -> tuple[Head, Snapshot, list[FileEntry]]:
    complete = change.rewrites or info.number % manifest.COMPLETE_EVERY == 0
    added = _write_files(root, info.number, change)
    kept = [entry for entry in files if entry.path not in change.replaces]
    listed = (*kept, *added) if complete else tuple(added)
    snapshot = Snapshot(info, head.newest, change.dim, change.width, complete, listed)
    pointer = manifest.write_snapshot(root, snapshot)
    newest = replace(head, newest=pointer, format=documents.FORMAT)
    manifest.write_head(root, newest)
    return newest, snapshot, added


def _write_files(root: Path, number: int, change: CommitDelta) -> list[FileEntry]:
    """Write the data files of a commit, and make them and their names durable."""
    entries = []
    for role, schema, parts, first, rows in batches(change, number):
        name = layout.data_name(role, number)
        file_io.make_folder((root / name).parent)
        written = codec.write_batches(root / name, schema, parts)
        file_io.sync_folder((root / name).parent)
        entries.append(FileEntry(name, written.size, written.sha256, role, first, rows))
    return entries


def _discard(root: Path, number: int, head: Head) -> None:
    """Give back the space of a commit that surely failed; what cannot be removed does no harm."""
    if manifest.read_head(root) != head:
        return
    names = [layout.snapshot_name(number), *(layout.data_name(role, number) for role in layout.ROLES)]
    for path in [*(root / name for name in names), layout.temporary(root / layout.MANIFEST)]:
        with suppress(StorageError):
            file_io.remove(path)
