"""`melo doctor`: what melo runs on here, and whether it works."""

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

    It changes nothing, needs no network, and takes some seconds. The
    output can be pasted into a bug report: it shows the home folder as ~.
    """
    renderer = make_renderer(json=as_json)
    from melo_cli import doctor as work

    renderer.info("checking libraries and devices")
    libraries, extras = work.libraries()
    devices, places, project = work.devices(), work.places(), _chosen_project()
    if test:
        renderer.info("testing an edit on a tiny model")
    steps = work.self_test() if test else None
    checkup = Checkup(work.system(), libraries, extras, devices, places, project, steps)
    renderer.show(checkup_view(checkup))
    if checkup.faults:
        raise typer.Exit(1)


def _chosen_project() -> FoundProject:
    """The project that a command without `--project` takes, or why it takes none."""
    from melo_cli.doctor import FoundProject, found_project

    try:
        chosen = choose_project(None)
    except ProjectNotFoundError:
        return FoundProject()
    except MeloError as error:
        return FoundProject(fault=str(error))
    return found_project(chosen.name, chosen.path)
