"""Which project a command means: the one named, else $MELO_PROJECT, else one under `.melo/` here or above."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from melo_cli.errors import ProjectError, ProjectNotFoundError
from melo_cli.suggest import did_you_mean

if TYPE_CHECKING:
    from store.project import Project

FOLDER = ".melo"
"""Holds the projects of the folder that it stands in, each in a folder of its own."""
ENVIRONMENT = "MELO_PROJECT"
EXPORTED_PROJECT = "melo"
"""In a folder that `melo export --format routed` wrote: the project beside the base model."""


@dataclass(frozen=True)
class ProjectRef:
    """A project that a command may mean.

    Attributes:
        path: as the work opens it: for an exported folder, that folder.
        edited_at: when its newest snapshot was made, UTC.
    """

    name: str
    path: Path
    task: str
    edited_at: datetime

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


def choose_project(named: str | None, *, task: str | None = None) -> ProjectRef:
    """The project that a command means.

    Args:
        named: what `--project` says: a path, or the name of a project under `.melo/`.
        task: what `--task` says: the recipe's task must be this one.

    Raises:
        ProjectNotFoundError: there is none, or none of that task.
        ProjectError: two fit equally well.
    """
    wanted = named or os.environ.get(ENVIRONMENT)
    if wanted:
        chosen = _read(_named_path(wanted))
        _require_task(chosen, task)
        return chosen
    found: list[ProjectRef] = []
    for folder in _melo_folders():
        projects = [_read(path) for path in _projects_in(folder)]
        fitting = [project for project in projects if task in (None, project.task)]
        if fitting:
            return _one_of(fitting, task)
        found += projects
    raise _none_fits(found, task)


def project_for_recipe(named: str | None, recipe_name: str) -> Path:
    """Where `melo edit RECIPE` makes or finds its project: nothing need stand there yet."""
    wanted = named or os.environ.get(ENVIRONMENT)
    if wanted:
        return _path_of(wanted)
    for folder in _melo_folders():
        if _is_project(folder / recipe_name):
            return _near(folder / recipe_name)
    return Path(FOLDER) / recipe_name


def known_names() -> list[str]:
    """Names of the projects under `.melo/` here and above, nearest first."""
    return list(dict.fromkeys(path.name for folder in _melo_folders() for path in _projects_in(folder)))


def project_folder(path: Path) -> Path:
    """The folder of the project itself: inside an exported folder, else `path`."""
    inside = path / EXPORTED_PROJECT
    return inside if inside.is_dir() else path


def open_store(path: Path, at: int | None = None) -> Project:
    """The project at `path` without its base model.

    Raises:
        MeloError: it is damaged, of a newer format, or has no such snapshot.
    """
    from store.project import Project

    return Project.open(project_folder(path), at=at)


def _read(path: Path) -> ProjectRef:
    """Name, task and date from the two small files that hold them: what lies beside them may be large."""
    from store.manifest import read_head, read_snapshot

    folder = project_folder(path)
    head = read_head(folder)
    newest = read_snapshot(folder, head.newest).info
    return ProjectRef(head.name, _near(path), str(newest.recipe.get("task")), newest.created_at)


def _named_path(wanted: str) -> Path:
    path = _path_of(wanted)
    if not _is_project(project_folder(path)):
        names = known_names()
        known = f"known here are {', '.join(names)}" if names else "make one with `melo edit RECIPE`"
        raise ProjectNotFoundError(
            "there is no project", where=wanted, mend=did_you_mean(wanted, names) or known
        )
    return path


def _path_of(wanted: str) -> Path:
    if Path(wanted).name == wanted:
        for folder in _melo_folders():
            if _is_project(folder / wanted):
                return _near(folder / wanted)
    return Path(wanted).expanduser()


def _require_task(project: ProjectRef, task: str | None) -> None:
    if task is not None and project.task != task:
        raise ProjectError(
            f"its task is {project.task}, not {task}",
            where=str(project),
            mend="leave out --task, or name another project with --project",
        )


def _one_of(fitting: Sequence[ProjectRef], task: str | None) -> ProjectRef:
    """The only one, or the last edited; a task that two have does not say which is meant."""
    newest = max(project.edited_at for project in fitting)
    best = list(fitting) if task is not None else [one for one in fitting if one.edited_at == newest]
    if len(best) > 1:
        why = f"task {task}" if task is not None else "and were edited at the same time"
        raise ProjectError(
            f"{len(best)} projects fit {why}: {', '.join(str(project) for project in best)}",
            mend="name one with --project",
        )
    return best[0]


def _none_fits(found: Sequence[ProjectRef], task: str | None) -> ProjectNotFoundError:
    if not found:
        return ProjectNotFoundError(
            f"there is no project under {FOLDER}/ here or in a folder above",
            where=str(Path.cwd()),
            mend="make one with `melo edit RECIPE`, or name one with --project",
        )
    tasks = ", ".join(f"{project.name} has task {project.task}" for project in found)
    return ProjectNotFoundError(f"no project has task {task}", where="--task", mend=tasks)


def _melo_folders() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            yield folder / FOLDER


def _projects_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_project(path))


def _is_project(path: Path) -> bool:
    from store.layout import MANIFEST

    return (path / MANIFEST).is_file()


def _near(path: Path) -> Path:
    """The path as short as a reader wants it: relative where it lies below the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
