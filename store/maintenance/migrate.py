"""Bring a project of an older format to the present one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from melo_store.errors import DamagedProjectError
from melo_store.format import documents, file_io, layout, lock, manifest
from melo_store.maintenance.verify import verify


def migrate(root: Path) -> tuple[int, int]:
    """Bring a project to the present format; its snapshots, neurons and blocks stay what they are.

    Every older format is part of the present one, so that one replaced manifest is all that it takes. Every
    commit does the same; this does nothing else, and checks every byte first.

    Returns:
        The format that it had and the one that it has now.

    Raises:
        ProjectNotFoundError: there is no project.
        FormatVersionError: it was written by a newer melo.
        DamagedProjectError: it is not whole; nothing is changed.
        ProjectLockedError: another process is writing.
        StorageError: the file system refused; the project is as it was.
    """
    manifest.read_head(root)
    with lock.writing(root, 0.0):
        head = manifest.read_head(root)
        if head.format == documents.FORMAT:
            return head.format, head.format
        for finding in verify(root):
            if not finding.file.startswith(layout.INDEX):
                raise DamagedProjectError(
                    f"{finding.file}: {finding.problem}", where=str(root), hint="run 'melo verify' first"
                )
        for folder in layout.FOLDERS:
            file_io.make_folder(root / folder)
        manifest.write_head(root, replace(head, format=documents.FORMAT))
        return head.format, documents.FORMAT
