"""`melo doctor`: what melo stands on here, and whether it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import JsonOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import MeloError, ProjectNotFoundError
from melo_cli.ui.doctor import Checkup, checkup_view
from melo_cli.ui.output import make_renderer

if TYPE_CHECKING:
    from melo_cli.doctor import FoundProject


def doctor(
    test: Annotated[
        bool,
        typer.Option("--self-test/--no-self-test", help="Edit a tiny model, ask it, take the edit back."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check versions, devices, folders and the project here, and test melo itself.

    Nothing is changed and no network is needed; it takes some seconds.
    What it prints is fit to paste into a report of a fault: the home
    folder is shown as ~.
    """
    renderer = make_renderer(json=as_json)
    from melo_cli import doctor as work

    renderer.info("looking at libraries and devices")
    libraries, extras = work.libraries()
    devices, places, project = work.devices(), work.places(), _chosen_project()
    if test:
        renderer.info("testing an edit on a tiny model")
    steps = work.self_test() if test else None
    found = Checkup(work.system(), libraries, extras, devices, places, project, steps)
    renderer.show(checkup_view(found))
    if found.faults:
        raise typer.Exit(1)


def _chosen_project() -> FoundProject:
    """The project that a command without `--project` would take, and why none is taken if that is a fault."""
    from melo_cli.doctor import FoundProject, found_project

    try:
        chosen = choose_project(None)
    except ProjectNotFoundError:
        return FoundProject()
    except MeloError as error:
        return FoundProject(fault=str(error))
    return found_project(chosen.name, chosen.path)
