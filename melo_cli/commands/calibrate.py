"""`melo calibrate`: learn the scope model of a project, and choose its threshold."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.ui.calibration import calibration_view
from melo_cli.ui.output import make_renderer


def calibrate(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the project's recipe: routing.max_false_fire.hard=0.02.",
        ),
    ] = None,
    project: ProjectOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn again which prompts each edit of a project answers.

    Learns a scope model from a corpus of questions and from the project's
    own data, and chooses the threshold: the one that reaches the most
    rephrases with false fires within routing.max_false_fire. Shows the
    figures to expect, and those with the other readers on this machine: the
    base model, or a sentence encoder. `melo edit` does the same before a
    project's first edit. It makes one commit; older snapshots stay as they
    are.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_cli.editing import calibrate_again

    collect_from_here()
    calibration = calibrate_again(chosen.path, overrides or [], renderer, command=context.obj, base=base)
    renderer.show(calibration_view(chosen.name, calibration))
