"""What a project is and what its snapshots hold: two kinds of small JSON files.

``manifest.json`` is the only file that is ever replaced. It carries the format, the project's name and
base, and points to the newest snapshot by number, size and sha256. A snapshot file carries what a commit was,
points to its parent in the same way, and lists the data files that it adds. So every commit writes two small
files, whatever the size of the store, and one checksum binds the whole history.

Where a snapshot is ``complete``, its list is the whole list, and reading stops there; snapshot 0 is, every
`COMPLETE_EVERY`-th is, and so is one that rewrites files. Reading a snapshot takes the chain back to there.

``format``, ``needs`` and ``check`` of ``manifest.json`` keep their meaning in every later format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from store import fileio, layout
from store.errors import (
    DamagedProjectError,
    FormatVersionError,
    InvalidEditError,
    ProjectNotFoundError,
    UnknownEditError,
)
from store.records import BaseReference, FileEntry, SnapshotInfo

FORMAT = 2
"""What new projects get, and the newest that is read; 2 brought key maps, and 1 stays as it is otherwise."""
FORMAT_OF_KEY_MAPS = 2
NEEDS = {1: "0.1.0", 2: "0.2.0"}
"""The oldest melo that reads each format."""

COMPLETE_EVERY = 64

_MAX_HEAD = 1 << 20
_MAX_NUMBER = 1 << 31

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pointer:
    """A snapshot file by number, size and checksum."""

    number: int
    size: int
    sha256: str

    @property
    def path(self) -> str:
        return layout.snapshot_name(self.number)

    def entry(self) -> FileEntry:
        return FileEntry(self.path, self.size, self.sha256, "snapshot", 0, 0)


@dataclass(frozen=True, slots=True)
class Head:
    """The content of ``manifest.json``.

    Attributes:
        oldest: number of the oldest snapshot that is kept.
        format: that of the project; a commit does not change it.
    """

    name: str
    base: BaseReference
    newest: Pointer
    oldest: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of a snapshot file.

    Attributes:
        key_dim: size of a key; None before the first neuron.
        complete: `files` lists all files of the snapshot, not only those that it adds.
    """

    info: SnapshotInfo
    parent: Pointer | None
    key_dim: int | None
    complete: bool
    files: tuple[FileEntry, ...]


def read_head(root: Path) -> Head:
    """Read ``manifest.json``.

    Raises:
        ProjectNotFoundError: there is none.
        FormatVersionError: a newer melo wrote it.
        DamagedProjectError: it is not what melo wrote.
    """
    path = root / layout.MANIFEST
    with fileio.refusals(path):
        if not path.is_file():
            raise ProjectNotFoundError(
                "there is no project here", where=str(root), mend="make one with 'melo edit'"
            )
        with path.open("rb") as file:
            content = file.read(_MAX_HEAD + 1)
    with _damage(path):
        document = _document(content)
        if _field(document, "check", str) != _check(document):
            raise ValueError("its checksum does not fit")
        if _field(document, "format", int) > FORMAT:
            needs = _field(document, "needs", str)
            raise FormatVersionError(
                f"the project has format {document['format']}, and this melo reads up to {FORMAT}",
                where=str(root),
                mend=f"install melo {needs} or newer",
            )
        base = _field(document, "base", dict)
        return Head(
            name=_field(document, "name", str),
            base=BaseReference(
                _field(base, "name_or_path", str),
                _optional(base, "revision", str),
                _strings(_field(base, "fingerprint", dict)),
            ),
            newest=_pointer(_field(document, "newest", dict)),
            oldest=_number(document, "oldest"),
            format=_known_format(document["format"]),
        )


def head_bytes(head: Head) -> bytes:
    """``manifest.json`` for a head.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    document: dict[str, Any] = {
        "format": head.format,
        "needs": NEEDS[head.format],
        "name": head.name,
        "base": {
            "name_or_path": head.base.name_or_path,
            "revision": head.base.revision,
            "fingerprint": dict(head.base.fingerprint),
        },
        "newest": _pointer_document(head.newest),
        "oldest": head.oldest,
    }
    return _bytes({**document, "check": _check(document)})


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """A snapshot file.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    info = snapshot.info
    return _bytes(
        {
            "number": info.number,
            "parent": _pointer_document(snapshot.parent) if snapshot.parent else None,
            "created_at": info.created_at.isoformat(),
            "action": info.action,
            "recipe": dict(info.recipe),
            "seed": info.seed,
            "versions": dict(info.versions),
            "command": info.command,
            "counts": dict(info.counts),
            "detail": dict(info.detail),
            "key_dim": snapshot.key_dim,
            "complete": snapshot.complete,
            "files": [_entry_document(entry) for entry in snapshot.files],
        }
    )


def require_json(info: SnapshotInfo) -> None:
    """Refuse what a snapshot file cannot hold, before anything is written.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    snapshot_bytes(Snapshot(info, parent=None, key_dim=None, complete=True, files=()))


def read_snapshot(root: Path, pointer: Pointer) -> Snapshot:
    """Read the snapshot file that a pointer names.

    Raises:
        DamagedProjectError: it is missing, or is not the one that the pointer means.
    """
    path = layout.inside(root, pointer.path)
    if not path.is_file():
        raise DamagedProjectError("the file is missing", where=str(path), mend="run 'melo verify'")
    with fileio.refusals(path), path.open("rb") as file:
        content = file.read(pointer.size + 1)
    with _damage(path):
        if len(content) != pointer.size or hashlib.sha256(content).hexdigest() != pointer.sha256:
            raise ValueError("its checksum does not fit")
        document = _document(content)
        parent = _optional(document, "parent", dict)
        snapshot = Snapshot(
            info=_info(document),
            parent=_pointer(parent) if parent is not None else None,
            key_dim=_number(document, "key_dim") if document.get("key_dim") is not None else None,
            complete=_field(document, "complete", bool),
            files=tuple(_entry(each) for each in _field(document, "files", list)),
        )
        _check_links(snapshot, pointer)
        return snapshot


def write_snapshot(root: Path, snapshot: Snapshot) -> Pointer:
    """Write a snapshot file; nothing points to it yet.

    Raises:
        InvalidEditError: something in it is no JSON value.
        StorageError: the file system refused.
    """
    content = snapshot_bytes(snapshot)
    path = root / layout.snapshot_name(snapshot.info.number)
    written = fileio.write_file(path, lambda sink: sink.write(content))
    fileio.sync_folder(path.parent)
    return Pointer(snapshot.info.number, written.size, written.sha256)


def write_head(root: Path, head: Head) -> None:
    """Replace ``manifest.json``: the moment in which a commit happens.

    Raises:
        StorageError: the file system refused.
    """
    path = root / layout.MANIFEST
    fileio.replace_file(path, head_bytes(head), layout.temporary(path))


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
            mend=f"the project keeps snapshots {head.oldest} to {head.newest.number}",
        )
    found: Pointer | None = None
    chain: list[Snapshot] = []
    for pointer, snapshot in walk(root, head):
        if pointer.number <= wanted:
            found = found or pointer
            chain.append(snapshot)
            if snapshot.complete:
                return found, chain
    raise DamagedProjectError("its history has no beginning", where=str(root), mend="run 'melo verify'")


def all_files(chain: list[Snapshot]) -> tuple[FileEntry, ...]:
    """The data files of the newest snapshot of a chain, oldest first."""
    return tuple(entry for snapshot in reversed(chain) for entry in snapshot.files)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        raise DamagedProjectError(
            f"this is not what melo wrote ({error})", where=str(path), mend="run 'melo verify'"
        ) from error


def _check_links(snapshot: Snapshot, pointer: Pointer) -> None:
    number, parent = snapshot.info.number, snapshot.parent
    if number != pointer.number:
        raise ValueError(f"it is snapshot {number}")
    if (None if parent is None else parent.number) != snapshot.info.parent:
        raise ValueError("its parents differ")
    if parent is not None and parent.number >= number:
        raise ValueError("its parent is not older")
    if parent is None and not snapshot.complete:
        raise ValueError("it has no parent to go on from")


def _info(document: Mapping[str, Any]) -> SnapshotInfo:
    parent = _optional(document, "parent", dict)
    created_at = datetime.fromisoformat(_field(document, "created_at", str))
    if created_at.utcoffset() != timedelta(0):
        raise ValueError("its time is not in UTC")
    return SnapshotInfo(
        number=_number(document, "number"),
        parent=_number(parent, "number") if parent is not None else None,
        created_at=created_at,
        action=_field(document, "action", str),
        recipe=_field(document, "recipe", dict),
        seed=_field(document, "seed", int),
        versions=_strings(_field(document, "versions", dict)),
        command=_optional(document, "command", str),
        counts={name: _field(document["counts"], name, int) for name in _field(document, "counts", dict)},
        detail=_field(document, "detail", dict),
    )


def _entry(document: Any) -> FileEntry:
    role = _field(document, "role", str)
    path = _field(document, "path", str)
    if role not in layout.ROLES or not layout.is_data_name(path, role):
        raise ValueError(f"'{path}' is no name of a file of a project")
    size, first, rows = (_number(document, name, limit=1 << 62) for name in ("size", "first", "rows"))
    if rows > size or first + rows > 1 << 32:
        raise ValueError(f"{path} cannot hold {rows} rows from {first} on")
    return FileEntry(path, size, _field(document, "sha256", str), role, first, rows)


def _entry_document(entry: FileEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("path", "size", "sha256", "role", "first", "rows")}


def _known_format(number: int) -> int:
    if number not in NEEDS:
        raise ValueError(f"there is no format {number}")
    return number


def _pointer(document: Mapping[str, Any]) -> Pointer:
    size = _number(document, "size", limit=1 << 40)
    return Pointer(_number(document, "number"), size, _field(document, "sha256", str))


def _pointer_document(pointer: Pointer) -> dict[str, Any]:
    return {"number": pointer.number, "size": pointer.size, "sha256": pointer.sha256}


def _document(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("a JSON object was expected")
    return document


def _field(document: Any, name: str, kind: type[T]) -> T:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"'{name}' is missing or of another type")
    return value


def _optional(document: Any, name: str, kind: type[T]) -> T | None:
    return None if isinstance(document, dict) and document.get(name) is None else _field(document, name, kind)


def _number(document: Any, name: str, *, limit: int = _MAX_NUMBER) -> int:
    value = _field(document, name, int)
    if not 0 <= value < limit:
        raise ValueError(f"'{name}' is out of range")
    return value


def _strings(document: Mapping[Any, Any]) -> dict[str, str]:
    return {name: _field(document, name, str) for name in document}


def _bytes(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"recipe, versions and detail have to be JSON values ({error})") from error


def _check(document: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name != "check"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
