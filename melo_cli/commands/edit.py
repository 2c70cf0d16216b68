"""`melo edit`: the edits of a recipe, or a single one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.collector import collect_from_here
from melo_cli.commands._interrupt import stop_on_interrupt
from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption, require_text, require_texts
from melo_cli.commands.rendering.calibration import show_calibration
from melo_cli.commands.rendering.edits import edit_document, show_edit_summary
from melo_cli.errors import MeloError
from melo_cli.projects import choose_project, open_store, project_for_recipe
from melo_cli.terminal import Terminal

if TYPE_CHECKING:
    from melo_cli.datasets import EditRequest
    from melo_cli.editing import EditSummary

_INTERRUPTED = 130
_GOES_ON = "the same command goes on where it stopped"


def edit(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's file, or the name of one that comes with melo."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe: training.max_steps=20."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="Make a single edit: what is asked.", callback=require_text
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="TEXT", help="The answer wanted to --prompt.", callback=require_text
        ),
    ] = None,
    rephrases: Annotated[
        list[str] | None,
        typer.Option("--rephrase", metavar="TEXT", help="--prompt in other words.", callback=require_texts),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject", metavar="TEXT", help="What the single edit is about.", callback=require_text
        ),
    ] = None,
    project: ProjectOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the edits of a RECIPE, or a single one with --prompt and --target.

    The edits of a recipe go to the project .melo/NAME, batch by batch;
    those that it has already are not made again. A single edit goes to the
    project last edited, with the settings of its recipe.
    """
    terminal = Terminal(json=as_json)
    command: str = context.obj
    if recipe is not None:
        _refuse_beside_recipe(prompt=prompt, target=target, rephrase=rephrases, subject=subject, base=base)
        summary = _edit_recipe(terminal, recipe, overrides or [], project, command)
    else:
        if overrides:
            raise MeloError(
                "--set changes a recipe, and none is named", where="melo edit", mend="name a RECIPE"
            )
        request = _single_request(prompt, target, rephrases or [], subject)
        summary = _edit_single(terminal, request, project, base, command)
    superseded = _superseded(summary)
    if summary.calibration is not None and not as_json:
        show_calibration(terminal, summary.calibration)
    if as_json:
        terminal.document(edit_document(summary, superseded))
    else:
        show_edit_summary(terminal, summary, superseded)
    if summary.left:
        terminal.warn(f"stopped with {summary.left} edits to go; {_GOES_ON}")
        raise typer.Exit(_INTERRUPTED)
    if summary.failures:
        raise typer.Exit(1)


def _edit_recipe(
    terminal: Terminal, name: str, overrides: list[str], project: str | None, command: str
) -> EditSummary:
    from melo_cli.recipe import load_recipe
    from melo_cli.recipes_catalog import find_recipe

    recipe = load_recipe(find_recipe(name), overrides)
    target = project_for_recipe(project, recipe.name)
    terminal.heading(f"project {target}")
    from melo_cli.editing import edit_dataset

    collect_from_here()
    with stop_on_interrupt() as stop:
        try:
            return edit_dataset(recipe, target.path, terminal, command=command, should_stop=stop)
        except KeyboardInterrupt:
            terminal.warn(f"aborted: the batch in hand is lost, those before it are kept; {_GOES_ON}")
            raise typer.Exit(_INTERRUPTED) from None


def _edit_single(
    terminal: Terminal, request: EditRequest, project: str | None, base: str | None, command: str
) -> EditSummary:
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    from melo_cli.editing import edit_single

    collect_from_here()
    return edit_single(request, chosen.path, terminal, command=command, base=base)


def _single_request(
    prompt: str | None, target: str | None, rephrases: list[str], subject: str | None
) -> EditRequest:
    if prompt is None and target is None:
        raise MeloError(
            "there is nothing to edit", where="melo edit", mend="name a RECIPE, or give --prompt and --target"
        )
    if not (prompt and prompt.strip()):
        raise MeloError("a single edit needs a prompt", where="melo edit", mend="give --prompt TEXT")
    if not (target and target.strip()):
        raise MeloError("a single edit needs an answer", where="melo edit", mend="give --target TEXT")
    from melo_cli.datasets import EditRequest

    return EditRequest(prompt, target, rephrases=tuple(rephrases), subject=subject)


def _refuse_beside_recipe(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise MeloError(
                f"a RECIPE and --{name} do not go together",
                where="melo edit",
                mend="leave out the RECIPE to make a single edit in a project that is there",
            )


def _superseded(summary: EditSummary) -> int:
    """How many older edits this run replaced."""
    made = {outcome.edit_id for outcome in summary.outcomes}
    views = open_store(summary.path).edits() if made else []
    return sum(len(view.record.supersedes) for view in views if view.edit_id in made)
