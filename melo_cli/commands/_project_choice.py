"""Which project a command means: the one named, else $MELO_PROJECT, else one under `.melo/` here or above."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from melo_cli.errors import ProjectError, ProjectNotFoundError
from melo_cli.runtime.projects import FOLDER, is_project, store_path
from melo_cli.suggest import did_you_mean

_HOW_TO_START = "`melo edit --model MODEL --prompt TEXT --target TEXT`"
ENVIRONMENT = "MELO_PROJECT"


@dataclass(frozen=True)
class ProjectRef:
    """A project as a command names it.

    Attributes:
        path: as the work opens it: for an exported folder, that folder.
    """

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


@dataclass(frozen=True)
class _ProjectEntry:
    """A project that stands somewhere, with what the choice goes by."""

    ref: ProjectRef
    task: str
    edited_at: datetime


def choose_project(named: str | None, *, task: str | None = None) -> ProjectRef:
    """The project that a command means.

    Args:
        named: what `--project` says: a path, or the name of a project under `.melo/`.
        task: what `--task` says: the recipe's task must be this one.

    Raises:
        ProjectNotFoundError: there is none, or none of that task.
        ProjectError: two fit equally well, or the one that is chosen cannot be read.
    """
    wanted = named or os.environ.get(ENVIRONMENT)
    if wanted:
        chosen = _read(_existing(wanted))
        _require_task(chosen, task)
        return chosen.ref
    seen: list[_ProjectEntry] = []
    for folder in _melo_folders():
        here = [_read(path) for path in _projects_in(folder)]
        fitting = [project for project in here if task in (None, project.task)]
        if fitting:
            return _one_of(fitting, task).ref
        seen += here
    raise _none_fits(seen, task)


def project_for_recipe(named: str | None, recipe_name: str) -> ProjectRef:
    """Where `melo edit RECIPE` finds or makes its project; one that is there already goes by its own name."""
    wanted = named or os.environ.get(ENVIRONMENT)
    path = _path_of(wanted) if wanted else (_under_melo(recipe_name) or Path(FOLDER) / recipe_name)
    return _read(path).ref if is_project(path) else ProjectRef(recipe_name, path)


def known_names() -> list[str]:
    """Names of the projects under `.melo/` here and above, nearest first."""
    return list(dict.fromkeys(path.name for folder in _melo_folders() for path in _projects_in(folder)))


def _read(path: Path) -> _ProjectEntry:
    """From the two small files that say it: what lies beside them may be large."""
    from melo_store.format.manifest import read_head, read_snapshot

    head = read_head(store_path(path))
    newest = read_snapshot(store_path(path), head.newest).info
    return _ProjectEntry(ProjectRef(head.name, path), str(newest.recipe.get("task")), newest.created_at)


def _existing(wanted: str) -> Path:
    path = _path_of(wanted)
    if not is_project(store_path(path)):
        names = known_names()
        known = f"known here are {', '.join(names)}" if names else f"make one with {_HOW_TO_START}"
        raise ProjectNotFoundError(
            "there is no project", where=wanted, hint=did_you_mean(wanted, names) or known
        )
    return path


def _path_of(wanted: str) -> Path:
    """A bare name is one under `.melo/` where that is there; all else is a path."""
    under = _under_melo(wanted) if Path(wanted).name == wanted else None
    return under or Path(wanted).expanduser()


def _under_melo(name: str) -> Path | None:
    return next((folder / name for folder in _melo_folders() if is_project(folder / name)), None)


def _require_task(project: _ProjectEntry, task: str | None) -> None:
    if task is not None and project.task != task:
        raise ProjectError(
            f"its task is {project.task}, not {task}",
            where=str(project.ref),
            hint="leave out --task, or name another project with --project",
        )


def _one_of(fitting: Sequence[_ProjectEntry], task: str | None) -> _ProjectEntry:
    """The last edited; but where a task was asked for, two of that task fit equally."""
    newest = max(project.edited_at for project in fitting)
    best = [project for project in fitting if task is not None or project.edited_at == newest]
    if len(best) > 1:
        names = ", ".join(str(project.ref) for project in best)
        raise ProjectError(f"{len(best)} projects fit equally: {names}", hint="name one with --project")
    return best[0]


def _none_fits(seen: Sequence[_ProjectEntry], task: str | None) -> ProjectNotFoundError:
    if not seen:
        return ProjectNotFoundError(
            f"there is no project under {FOLDER}/ here or in a folder above",
            where=str(Path.cwd()),
            hint=f"make one with {_HOW_TO_START} or `melo edit RECIPE`, or name one with --project",
        )
    tasks = ", ".join(f"{project.ref.name} has task {project.task}" for project in seen)
    return ProjectNotFoundError(f"no project has task {task}", where="--task", hint=tasks)


def _melo_folders() -> Iterator[Path]:
    """Every `.melo/`, this folder's own as a relative path."""
    candidates = (Path(FOLDER), *(folder / FOLDER for folder in Path.cwd().parents))
    return (folder for folder in candidates if folder.is_dir())


def _projects_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_project(path))
