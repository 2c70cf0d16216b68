"""What a project is and what its snapshots hold: two kinds of small JSON files.

``manifest.json`` is the only file that is ever replaced. It carries the format, the project's name and
base, and points to the newest snapshot by number, size and sha256. A snapshot file carries what a commit was,
points to its parent in the same way, and lists the data files that it adds. So every commit writes two small
files, whatever the size of the store, and one checksum binds the whole history.

Where a snapshot is ``complete``, its list is the whole list, and reading stops there; snapshot 0 is, every
`COMPLETE_EVERY`-th is, and so is one that rewrites files. Reading a snapshot takes the chain back to there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from melo_store.errors import DamagedProjectError, ProjectNotFoundError, UnknownEditError
from melo_store.format import documents, file_io, layout
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.records import FileEntry, SnapshotInfo

COMPLETE_EVERY = 64

_MAX_HEAD = 1 << 20

T = TypeVar("T")


def read_head(root: Path) -> Head:
    """Read ``manifest.json``.

    Raises:
        ProjectNotFoundError: there is none.
        FormatVersionError: a newer melo wrote it.
        DamagedProjectError: it is not what melo wrote.
    """
    path = root / layout.MANIFEST
    with file_io.refusals(path):
        if not path.is_file():
            raise ProjectNotFoundError(
                "there is no project here", where=str(root), hint="make a project with 'melo edit'"
            )
        with path.open("rb") as file:
            content = file.read(_MAX_HEAD + 1)
    with _damage(path):
        return documents.head_of(content, root)


def read_from(root: Path, read: Callable[[Head], T]) -> T:
    """What `read` makes of the newest head; once more where files were removed while it read.

    Raises:
        ProjectNotFoundError, FormatVersionError, DamagedProjectError: as `read_head`.
        DamagedProjectError: `read` raised it, and the head is still the same.
    """
    head = read_head(root)
    while True:
        try:
            return read(head)
        except DamagedProjectError:
            before, head = head, read_head(root)
            if head == before:
                raise  # nobody removed files in this moment: they are broken


def read_snapshot(root: Path, pointer: Pointer) -> Snapshot:
    """Read the snapshot file that a pointer names.

    Raises:
        DamagedProjectError: it is missing, or is not the one that the pointer means.
    """
    path = layout.inside(root, pointer.path)
    if not path.is_file():
        raise DamagedProjectError("the file is missing", where=str(path), hint="run 'melo verify'")
    with file_io.refusals(path), path.open("rb") as file:
        content = file.read(pointer.size + 1)
    with _damage(path):
        if len(content) != pointer.size or hashlib.sha256(content).hexdigest() != pointer.sha256:
            raise ValueError("its checksum is wrong")
        return documents.snapshot_of(content, pointer)


def write_snapshot(root: Path, snapshot: Snapshot) -> Pointer:
    """Write a snapshot file; nothing points to it yet.

    Raises:
        InvalidEditError: something in it is no JSON value.
        StorageError: the file system refused.
    """
    content = documents.snapshot_bytes(snapshot)
    path = root / layout.snapshot_name(snapshot.info.number)
    written = file_io.write_file(path, lambda sink: sink.write(content))
    file_io.sync_folder(path.parent)
    return Pointer(snapshot.info.number, written.size, written.sha256)


def write_head(root: Path, head: Head) -> None:
    """Replace ``manifest.json``: the moment in which a commit happens.

    Raises:
        StorageError: the file system refused.
    """
    path = root / layout.MANIFEST
    file_io.replace_file(path, documents.head_bytes(head), layout.temporary(path))


def walk(root: Path, head: Head) -> Iterator[tuple[Pointer, Snapshot]]:
    """Every snapshot file that is needed, newest first: down to where the files of the oldest kept begin.

    Raises:
        DamagedProjectError: a snapshot file on the way is broken.
    """
    pointer: Pointer | None = head.newest
    while pointer is not None:
        snapshot = read_snapshot(root, pointer)
        yield pointer, snapshot
        pointer = snapshot.parent if goes_on(head, snapshot) else None


def goes_on(head: Head, snapshot: Snapshot) -> bool:
    """Whether a snapshot older than this one is needed."""
    return snapshot.info.number > head.oldest or not snapshot.complete


def history(root: Path, head: Head) -> Iterator[SnapshotInfo]:
    """Every snapshot that is kept, newest first.

    Raises:
        DamagedProjectError: a snapshot file on the way is broken.
    """
    return (snapshot.info for pointer, snapshot in walk(root, head) if pointer.number >= head.oldest)


def find(root: Path, head: Head, number: int | None) -> tuple[Pointer, list[Snapshot]]:
    """A snapshot and those before it, newest first, back to the first complete one.

    Args:
        number: None for the newest.

    Raises:
        UnknownEditError: there is no such snapshot, or it is no longer kept.
    """
    wanted = head.newest.number if number is None else number
    if not head.oldest <= wanted <= head.newest.number:
        raise UnknownEditError(
            f"there is no snapshot {wanted}",
            where=str(root),
            hint=f"the project keeps snapshots {head.oldest} to {head.newest.number}",
        )
    newest: Pointer | None = None
    chain: list[Snapshot] = []
    for pointer, snapshot in walk(root, head):
        if pointer.number <= wanted:
            newest = newest or pointer
            chain.append(snapshot)
            if snapshot.complete:
                return newest, chain
    raise DamagedProjectError(
        "the first snapshot of its history is missing", where=str(root), hint="run 'melo verify'"
    )


def all_files(chain: list[Snapshot]) -> tuple[FileEntry, ...]:
    """The data files of the newest snapshot of a chain, oldest first."""
    return tuple(entry for snapshot in reversed(chain) for entry in snapshot.files)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        raise DamagedProjectError(
            f"melo did not write this content ({error})", where=str(path), hint="run 'melo verify'"
        ) from error
