"""The two kinds of JSON files of a project, as records: what is in them, written and read.

Every field is checked for its type and range, so that nothing else of the store meets a number or a name that
melo would not have written. ``format``, ``needs`` and ``check`` of ``manifest.json`` keep their meaning in
every later format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from melo_store.errors import FormatVersionError, InvalidEditError
from melo_store.format import layout
from melo_store.records import BaseReference, FileEntry, SnapshotInfo

FORMAT = 4
"""What every commit writes, and the newest that is read.

2 brought key maps; 3 token vectors, neurons without a radius, and that only the same prompt supersedes;
4 blocks in half precision, and blocks whose `A` a seed names.
"""
NEEDS = {1: "0.1.0", 2: "0.2.0", 3: "0.3.0", 4: "0.4.0"}
"""The oldest melo that reads each format."""

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
        format: that of the project, which a commit makes the present one.
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
        token_width: size of a token vector; None before the first edit that has some.
        complete: `files` lists all files of the snapshot, not only those that it adds.
    """

    info: SnapshotInfo
    parent: Pointer | None
    key_dim: int | None
    token_width: int | None
    complete: bool
    files: tuple[FileEntry, ...]


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


def head_of(content: bytes, root: Path) -> Head:
    """The head that ``manifest.json`` holds.

    Raises:
        FormatVersionError: a newer melo wrote it.
        ValueError, OverflowError, RecursionError: it is not what melo wrote.
    """
    document = _document(content)
    if _field(document, "check", str) != _check(document):
        raise ValueError("its checksum is wrong")
    if _field(document, "format", int) > FORMAT:
        needs = _field(document, "needs", str)
        raise FormatVersionError(
            f"the project has format {document['format']}, but this melo reads formats up to {FORMAT}",
            where=str(root),
            hint=f"install melo {needs} or newer",
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
            "token_width": snapshot.token_width,
            "complete": snapshot.complete,
            "files": [_entry_document(entry) for entry in snapshot.files],
        }
    )


def require_json(info: SnapshotInfo) -> None:
    """Refuse what a snapshot file cannot hold, before anything is written.

    Raises:
        InvalidEditError: something in it is no JSON value.
    """
    snapshot_bytes(Snapshot(info, parent=None, key_dim=None, token_width=None, complete=True, files=()))


def snapshot_of(content: bytes, pointer: Pointer) -> Snapshot:
    """The snapshot that a snapshot file holds; its checksum fits.

    Raises:
        ValueError, OverflowError, RecursionError: it is not what the pointer means.
    """
    document = _document(content)
    parent = _optional(document, "parent", dict)
    snapshot = Snapshot(
        info=_info(document),
        parent=_pointer(parent) if parent is not None else None,
        key_dim=_optional_number(document, "key_dim"),
        token_width=_optional_number(document, "token_width"),
        complete=_field(document, "complete", bool),
        files=tuple(_entry(each) for each in _field(document, "files", list)),
    )
    _check_links(snapshot, pointer)
    return snapshot


def _check_links(snapshot: Snapshot, pointer: Pointer) -> None:
    number, parent = snapshot.info.number, snapshot.parent
    if number != pointer.number:
        raise ValueError(f"it is the file of snapshot {number}")
    if (None if parent is None else parent.number) != snapshot.info.parent:
        raise ValueError("it names two different parents")
    if parent is not None and parent.number >= number:
        raise ValueError("its parent is not an older snapshot")
    if parent is None and not snapshot.complete:
        raise ValueError("it has no parent and no complete list of files")


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
        raise ValueError(f"'{path}' is not the name of a project file")
    size, first, rows = (_number(document, name, limit=1 << 62) for name in ("size", "first", "rows"))
    if rows > size or first + rows > 1 << 32:
        raise ValueError(f"{path} cannot hold {rows} rows that begin at {first}")
    return FileEntry(path, size, _field(document, "sha256", str), role, first, rows)


def _entry_document(entry: FileEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("path", "size", "sha256", "role", "first", "rows")}


def _known_format(number: int) -> int:
    if number not in NEEDS:
        raise ValueError(f"format {number} does not exist")
    return number


def _pointer(document: Mapping[str, Any]) -> Pointer:
    size = _number(document, "size", limit=1 << 40)
    return Pointer(_number(document, "number"), size, _field(document, "sha256", str))


def _pointer_document(pointer: Pointer) -> dict[str, Any]:
    return {"number": pointer.number, "size": pointer.size, "sha256": pointer.sha256}


def _document(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def _field(document: Any, name: str, kind: type[T]) -> T:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"'{name}' is missing or has the wrong type")
    return value


def _optional(document: Any, name: str, kind: type[T]) -> T | None:
    return None if isinstance(document, dict) and document.get(name) is None else _field(document, name, kind)


def _number(document: Any, name: str, *, limit: int = _MAX_NUMBER) -> int:
    value = _field(document, name, int)
    if not 0 <= value < limit:
        raise ValueError(f"'{name}' is out of range")
    return value


def _optional_number(document: Any, name: str) -> int | None:
    return None if document.get(name) is None else _number(document, name)


def _strings(document: Mapping[Any, Any]) -> dict[str, str]:
    return {name: _field(document, name, str) for name in document}


def _bytes(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"recipe, versions and detail must be JSON values ({error})") from error


def _check(document: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name != "check"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
