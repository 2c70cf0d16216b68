"""Which small files of a snapshot are worth merging, decided from its list of files without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melo_store.records import FileEntry

MANY = 32
"""Least number of files of a role for a merge."""

_SMALL = 1 << 26
_AT_MOST = 1 << 30


@dataclass(frozen=True, slots=True)
class Merge:
    """Files of one role that become one file."""

    role: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(entry.size for entry in self.files)


def merges(files: Iterable[FileEntry]) -> list[Merge]:
    """What is worth merging in a snapshot of these files.

    Of edits and blocks the longest run of small files, so that a large file is not written again and again.
    Files of clusters and of statuses are small, and a merged file drops what later commits changed.
    """
    files = list(files)
    runs = {role: _longest_run(of_role(files, role)) for role in ("edits", "blocks")}
    runs |= {role: of_role(files, role) for role in ("clusters", "states")}
    return [Merge(role, tuple(run)) for role, run in runs.items() if len(run) >= MANY]


def of_role(files: Iterable[FileEntry], role: str) -> list[FileEntry]:
    """The files of a role in the order of what they hold."""
    return sorted((entry for entry in files if entry.role == role), key=lambda entry: entry.first)


def _longest_run(entries: Sequence[FileEntry]) -> list[FileEntry]:
    """The longest run of files that are small and together not too large to be held in memory."""
    best: list[FileEntry] = []
    run: list[FileEntry] = []
    for entry in entries:
        run = [*run, entry] if entry.size <= _SMALL else []
        while sum(each.size for each in run) > _AT_MOST:
            run = run[1:]
        best = run if len(run) > len(best) else best
    return best
