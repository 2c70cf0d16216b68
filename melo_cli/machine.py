"""What this machine has: memory, disk, and whether a folder can be written. Needs no torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_GROUPS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes, as far as this process may use it.

    Attributes:
        free: what a program can still take; the total where the system does not say.
    """

    total: int
    free: int


def main_memory() -> Memory | None:
    """That of the machine, within the limits of the control groups of a container or a batch queue.

    Returns:
        None where the system does not say.
    """
    whole = _of_machine()
    if whole is None:
        return None
    for limit, free in _of_groups():
        whole = Memory(min(whole.total, limit), min(whole.free, free))
    return whole


def held_memory() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if _STATM.exists() else 0


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def free_disk(path: Path) -> int:
    """Free bytes on the disk that a path lies on, or will lie on."""
    return shutil.disk_usage(existing(path)).free


def write_fault(folder: Path) -> str | None:
    """Why nothing can be written into a folder that is there or is to be made; None where it can be."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _of_machine() -> Memory | None:
    if _MEMINFO.exists():
        lines = (line.partition(":") for line in _MEMINFO.read_text().splitlines())
        values = {name: int(value.split()[0]) * 1024 for name, _, value in lines}
        return Memory(values["MemTotal"], values.get("MemAvailable", values["MemFree"]))
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(total, total)


def _of_groups() -> Iterator[tuple[int, int]]:
    """Limit and what is free of it, for this process's control group and each above it."""
    if not _GROUPS.exists():
        return
    for line in _GROUPS.read_text().splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            yield from _limits(_GROUP_ROOT, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits(_GROUP_ROOT / "memory", path, *names)


def _limits(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[tuple[int, int]]:
    """The path of this process's group; a container sees its own group as the root."""
    inside = Path(path.lstrip("/"))
    for group in dict.fromkeys(root / each for each in (inside, *inside.parents)):
        if not ((group / limit).is_file() and (group / usage).is_file()):
            continue
        values = (group / limit).read_text().strip()
        if values != "max":
            # Pages of files that nobody used lately are given back when memory is asked for.
            cached = _statistic(group / "memory.stat", reclaimable)
            used = int((group / usage).read_text()) - cached
            yield int(values), max(int(values) - used, 0)


def _statistic(path: Path, name: str) -> int:
    if not path.is_file():
        return 0
    pairs = (line.split() for line in path.read_text().splitlines())
    return next((int(value) for key, value in pairs if key == name), 0)
