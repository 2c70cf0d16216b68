"""`melo calibrate`: learn the scope model of a project, and choose its threshold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.commands._ray import GpusPerWorkerOption, RayOption, WorkersOption, cluster_options
from melo_cli.ui.calibration import calibration_view
from melo_cli.ui.output import make_renderer

if TYPE_CHECKING:
    from melo_cli.calibration import Calibration
    from melo_cli.distributed import ClusterOptions
    from melo_cli.ui.renderer import Renderer


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
    ray: RayOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
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
    cluster = cluster_options(ray, workers, gpus_per_worker)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_cli.editing import calibrate_again

    collect_from_here()
    run = partial(calibrate_again, chosen.path, overrides or [], renderer, command=context.obj, base=base)
    calibration = run() if cluster is None else _on_ray(run, cluster, renderer)
    renderer.show(calibration_view(chosen.name, calibration))


def _on_ray(run: Callable[..., Calibration], cluster: ClusterOptions, renderer: Renderer) -> Calibration:
    from melo_cli.distributed import ray_readers, ray_session

    with ray_session(cluster, renderer) as session:
        return run(readers=ray_readers(session))
