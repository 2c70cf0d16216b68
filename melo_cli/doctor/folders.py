"""The folders that melo reads and writes, and a project."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from melo_cli.doctor.attempt import attempt
from melo_cli.machine import free_disk, write_fault
from melo_cli.models.user_cache import user_cache
from melo_cli.runtime.projects import FOLDER, store_path


@dataclass(frozen=True)
class Folder:
    """A folder.

    Attributes:
        held: bytes of the files in it; None where they were not counted.
        free: bytes free on its disk.
        fault: why nothing can be written there, or nothing be known of it; None where all is well.
    """

    name: str
    path: str
    held: int | None
    free: int | None
    fault: str | None


@dataclass(frozen=True)
class FoundProject:
    """The project that a command without `--project` would take.

    Attributes:
        base: the base model, and whether it was found.
        fault: why it cannot be used, where it cannot.
    """

    name: str | None = None
    path: str | None = None
    format: int | None = None
    snapshot: int | None = None
    base: str | None = None
    fault: str | None = None


def places() -> list[Folder]:
    """This folder, its projects, and the two caches."""
    here = [_folder("this folder", Path.cwd(), counted=False)]
    if Path(FOLDER).is_dir():
        here.append(_folder("projects", Path.cwd() / FOLDER))
    hub, fault = attempt(_hub_cache)
    there = _folder("hub cache", hub) if hub is not None else Folder("hub cache", "", None, None, fault)
    return [*here, there, _folder("melo cache", user_cache())]


def found_project(name: str, path: Path) -> FoundProject:
    """What is known of a project without its base model."""
    project, fault = attempt(lambda: _read(store_path(path)))
    return project or FoundProject(name, str(path), fault=fault)


def _read(path: Path) -> FoundProject:
    from melo_store.format.manifest import read_head

    head = read_head(path)
    base = head.base
    here, fault = Path(base.name_or_path).is_dir(), None
    if here:
        description = f"{base.describe()}, found"
    elif Path(base.name_or_path).is_absolute():
        description, fault = f"{base.describe()}, not there", "its base model has moved: name it with --base"
    else:
        description = f"{base.describe()}, {_cached(base.name_or_path, base.revision)}"
    return FoundProject(head.name, str(path), head.format, head.newest.number, description, fault)


def _cached(name: str, revision: str | None) -> str:
    from melo_cli.models.hub_cache import cached_checkpoint

    return "in the hub cache" if cached_checkpoint(name, revision) is not None else "not in the hub cache yet"


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _folder(name: str, path: Path, *, counted: bool = True) -> Folder:
    held = _held(path) if counted else None
    return Folder(name, str(path), held, *_disk(path))


def _disk(path: Path) -> tuple[int | None, str | None]:
    try:
        return free_disk(path), write_fault(path)
    except OSError as error:
        return None, error.strerror or str(error)


def _held(path: Path) -> int:
    """Bytes of the files below a folder; a link counts for nothing, the hub's cache is full of them."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    statuses = (file.lstat() for file in files)
    return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))
