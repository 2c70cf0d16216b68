"""The store of a project, opened without its base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melo_cli.errors import StorageError

if TYPE_CHECKING:
    from melo_store.overview import Overview
    from melo_store.project import Project

FOLDER = ".melo"
"""Holds the projects of the folder that it stands in, each in a folder of its own."""
EXPORTED_PROJECT = "melo"
"""In a folder that `melo export --format routed` wrote: the project beside the base model."""


def store_path(path: Path) -> Path:
    """The folder of the store itself, for a project at `path` as the commands name it.

    Of an exported folder that is a folder in it.
    """
    inside = path / EXPORTED_PROJECT
    return inside if inside.is_dir() else path


def is_project(path: Path) -> bool:
    """Whether a project's store is in this very folder."""
    from melo_store.format.layout import MANIFEST

    return (path / MANIFEST).is_file()


def open_store(path: Path, at: int | None = None) -> Project:
    """The project at `path` without its base model.

    Raises:
        MeloError: it is damaged, of a newer format, or has no such snapshot.
    """
    from melo_store.project import Project

    return Project.open(store_path(path), at=at)


def open_overview(path: Path, at: int | None = None) -> Overview:
    """What the JSON files of the project at `path` say, read without its edits, keys and blocks.

    Raises:
        MeloError: one of them is damaged, it is of a newer format, or has no such snapshot.
    """
    from melo_store.overview import Overview

    return Overview.open(store_path(path), at=at)


def project_with_edits(path: Path) -> Project | None:
    """The project at a path; None where there is none, or one that never got an edit and binds nothing.

    Raises:
        MeloError: as `open_store`.
    """
    from melo_store.project import Project

    project = Project.open(path) if Project.exists(path) else None
    return project if project is not None and project.edits() else None


def require_writable(path: Path) -> None:
    """Refuse a project that cannot be written now, before any time is spent on it.

    Raises:
        ProjectLockedError: another process is writing it.
        StorageError: its file system refuses, or that where it would be made.
    """
    from melo_cli.machine import existing, write_fault
    from melo_store.format import lock

    if is_project(path):
        with lock.writing(path, 0.0):
            return
    if fault := write_fault(path):
        raise StorageError(
            f"no project can be made in {existing(path)} ({fault})",
            where=str(path),
            hint="name a folder that can be written with --project",
        )
