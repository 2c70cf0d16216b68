"""Remove what no kept snapshot needs: the leavings of broken-off commits, and index files since replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from store import fileio, index_file, layout, lock, manifest


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that nothing needs.

    Attributes:
        path: relative to the project.
        size: bytes.
    """

    path: str
    size: int


def collect(root: Path, *, dry_run: bool = False) -> list[Garbage]:
    """Remove every file of the store's own naming that no kept snapshot and no index record names.

    Holds the writer's lock, so that no commit is under way. Files that melo would not have named so are left
    alone. Where the history cannot be read whole, nothing is removed.

    Args:
        dry_run: remove nothing, only list.

    Returns:
        The files that were removed, or would be.

    Raises:
        ProjectLockedError: another process is writing.
        DamagedProjectError: a snapshot file is broken, so that it is not known what is needed.
        StorageError: the file system refused.
    """
    manifest.read_head(root)
    with lock.writing(root, 0.0):
        needed = _needed(root)
        garbage = [
            Garbage(name, (root / name).stat().st_size) for name in sorted(_ours(root)) if name not in needed
        ]
        if not dry_run:
            for each in garbage:
                fileio.remove(root / each.path)
            for folder in sorted({(root / each.path).parent for each in garbage}):
                fileio.sync_folder(folder)
        return garbage


def _needed(root: Path) -> set[str]:
    """Every file that a kept snapshot or the index record names."""
    needed = {layout.INDEX_RECORD}
    for pointer, snapshot in manifest.history(root, manifest.read_head(root)):
        needed.add(pointer.path)
        needed.update(entry.path for entry in snapshot.files)
    record = index_file.read_record(root)
    return needed | {record.path} if record is not None else needed


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
