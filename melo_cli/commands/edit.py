"""`melo edit`: the edits of a recipe or a data file, or a single one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._edit_source import EditSource, edit_source
from melo_cli.commands._estimate import show_estimate
from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._interactive import ask_for_edit
from melo_cli.commands._interrupt import stop_on_interrupt
from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption, require_text, require_texts
from melo_cli.commands._ray import GpusPerWorkerOption, RayOption, WorkersOption, cluster_options
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import open_store
from melo_cli.ui.edits import edits_view, single_edit_view
from melo_cli.ui.output import make_renderer
from melo_cli.ui.renderer import Renderer

if TYPE_CHECKING:
    from melo_cli.datasets import EditRequest
    from melo_cli.distributed import ClusterOptions
    from melo_cli.editing import EditSummary

_INTERRUPTED = 130
_GOES_ON = "the same command goes on where it stopped"


def edit(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE|DATA",
            help="A recipe's file, the name of one that comes with melo, or a file of edits.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Start without a recipe: a model's folder, hub id or .gguf file."
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
            "--subject",
            metavar="TEXT",
            help="What the single edit is about: a name in --prompt, or the text for its {}. "
            "Default: a name that melo finds in --prompt.",
            callback=require_text,
        ),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Ask for the single edit at the terminal.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe: training.max_steps=20."
        ),
    ] = None,
    project: ProjectOption = None,
    base: BaseOption = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only estimate the time, memory and disk that the edits take."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Continue even if the estimate exceeds the free memory or disk.")
    ] = False,
    ray: RayOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the edits of a RECIPE or of a DATA file, or a single one.

    melo edit --model MODEL --prompt TEXT --target TEXT starts a project with
    the defaults for that model. Without --model the edit goes to the project
    last edited. The edits of a recipe go to the project .melo/NAME, batch by
    batch. Edits that the project has already are not made again.
    """
    renderer = make_renderer(json=as_json)
    command: str = context.obj
    given = (prompt, target, rephrases or [], subject)
    request = ask_for_edit(renderer, *given) if interactive else _single_request(*given)
    if request is None and recipe is None:
        raise MeloError(
            "there is nothing to edit",
            where="melo edit",
            hint="name a RECIPE or a file of edits, or give --prompt and --target",
        )
    if request is not None:
        from melo_cli.datasets import filled_in

        request = filled_in(request, renderer)
    if ray is not None and request is not None:
        raise MeloError(
            "a single edit is made in this process",
            where="--ray",
            hint="leave --ray out, or name a RECIPE or a file of edits",
        )
    cluster = cluster_options(ray, workers, gpus_per_worker)
    source = edit_source(recipe, model, overrides or [], project, base, single=request is not None)
    renderer.heading(f"project {source.project}")
    if estimate:
        show_estimate(renderer, source, single=request is not None, force=force)
        return
    if request is not None:
        summary = _edit_single(renderer, request, source, command, force=force)
    else:
        summary = _edit_dataset(renderer, source, command, cluster, force=force)
    _show(renderer, summary, single=request is not None)
    if summary.left:
        renderer.warn(f"stopped with {summary.left} edits to go; {_GOES_ON}")
        raise typer.Exit(_INTERRUPTED)
    if summary.failures:
        raise typer.Exit(1)


def _edit_dataset(
    renderer: Renderer, source: EditSource, command: str, cluster: ClusterOptions | None, *, force: bool
) -> EditSummary:
    from melo_cli.editing import edit_dataset

    assert source.recipe is not None  # only a single edit goes by the project's own settings
    collect_from_here()
    run = partial(edit_dataset, source.recipe, source.project.path, renderer, command=command, force=force)
    try:
        with stop_on_interrupt() as stop:
            if cluster is None:
                return run(should_stop=stop)
            from melo_cli.distributed import ray_executors, ray_readers, ray_session

            with ray_session(cluster, renderer) as session:
                return run(should_stop=stop, executors=ray_executors(session), readers=ray_readers(session))
    except KeyboardInterrupt:
        renderer.warn(f"aborted: the batch in hand is lost, those before it are kept; {_GOES_ON}")
        raise typer.Exit(_INTERRUPTED) from None


def _edit_single(
    renderer: Renderer, request: EditRequest, source: EditSource, command: str, *, force: bool
) -> EditSummary:
    from melo_cli.editing import edit_first, edit_single

    collect_from_here()
    if source.recipe is not None:
        return edit_first(source.recipe, request, source.project.path, renderer, command=command, force=force)
    return edit_single(request, source.project.path, renderer, command=command, base=source.base)


def _single_request(
    prompt: str | None, target: str | None, rephrases: list[str], subject: str | None
) -> EditRequest | None:
    """The edit that the options describe; None where they describe none."""
    if prompt is None and target is None and not rephrases and subject is None:
        return None
    if not (prompt and prompt.strip()):
        raise MeloError("a single edit needs a prompt", where="melo edit", hint="give --prompt TEXT")
    if not (target and target.strip()):
        raise MeloError("a single edit needs an answer", where="melo edit", hint="give --target TEXT")
    from melo_cli.datasets import EditRequest

    return EditRequest(prompt, target, rephrases=tuple(rephrases), subject=subject)


def _show(renderer: Renderer, summary: EditSummary, *, single: bool) -> None:
    made = {outcome.edit_id for outcome in summary.outcomes}
    views = [view for view in open_store(summary.path).edits() if view.edit_id in made] if made else []
    superseded = sum(len(view.record.supersedes) for view in views)
    if single:
        renderer.show(single_edit_view(summary, superseded, views[0]))
    else:
        renderer.show(edits_view(summary, superseded))
