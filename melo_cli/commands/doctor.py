"""`melo doctor`: what melo stands on here, and whether it works."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import JsonOption
from melo_cli.ui.doctor import Checkup, checkup_view
from melo_cli.ui.output import make_renderer


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
    devices, places, project = work.devices(), work.places(), work.found_project()
    if test:
        renderer.info("testing an edit on a tiny model")
    steps = work.self_test() if test else None
    found = Checkup(work.system(), libraries, extras, devices, places, project, steps)
    renderer.show(checkup_view(found))
    if found.faults:
        raise typer.Exit(1)
