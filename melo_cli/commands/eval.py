"""`melo eval`: measure the edited model beside its base model and other editors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._options import AtOption, BaseOption, BlockCacheOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.commands._ray import GpusPerWorkerOption, RayOption, WorkersOption, cluster_options
from melo_cli.errors import MeloError
from melo_cli.ui.metrics import report_view
from melo_cli.ui.output import make_renderer

if TYPE_CHECKING:
    from melo_cli.distributed import ClusterOptions
    from melo_cli.evaluation import EvalReport
    from melo_cli.runtime.loading import OpenProject
    from melo_cli.ui.renderer import Renderer

_ENDINGS = {
    "--plot": ("a plot is", (".png", ".svg", ".pdf")),
    "--report": ("a report is", (".html",)),
    "--results": ("results are", (".parquet",)),
}


class Protocol(StrEnum):
    """How `melo eval` measures."""

    strict = "strict"
    paper = "paper"


def evaluate(
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="Take the project whose recipe has this task."),
    ] = None,
    project: ProjectOption = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            help="strict: exact answers, unseen rephrases, hard negatives. paper: the published measures.",
        ),
    ] = Protocol.strict,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="NAMES",
            help="Other editors on the same edits: base,finetune,lora,grace,alphaedit or some of them.",
        ),
    ] = None,
    baseline_set: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline-set", metavar="NAME.SETTING=VALUE", help="A baseline's setting, as finetune.lr=1e-4."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", metavar="N", min=1, help="Ask of N edits, drawn by the recipe's seed; else of all."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write a page to read and to share: .html."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FILE", help="Write every probe with its answers: .parquet."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw retention by edit order: .png, .svg or .pdf."),
    ] = None,
    at: AtOption = None,
    base: BaseOption = None,
    block_cache_mb: BlockCacheOption = 256,
    ray: RayOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure edit success, generality and locality of a project, beside its base model.

    The project keeps the figures of its newest snapshot: `melo status` and
    the page of `melo serve` show them.
    """
    renderer = make_renderer(json=as_json)
    for option, path in (("--plot", plot), ("--report", report), ("--results", results)):
        if path is not None:
            _check_output(option, path)
    if sample is not None and baseline is not None:
        raise MeloError(
            "another editor would hold the sample alone, and melo all edits",
            where="--sample",
            hint="leave out --sample or --baseline",
        )
    cluster = cluster_options(ray, workers, gpus_per_worker)
    chosen = choose_project(project, task=task)
    renderer.heading(f"project {chosen}")
    from melo_cli.evaluation import evaluate as measure
    from melo_cli.evaluation import keep, parse_baselines
    from melo_cli.runtime.loading import open_project

    baselines = parse_baselines(baseline, baseline_set or [])
    opened = open_project(chosen.path, at=at, base=base, block_cache_mb=block_cache_mb)
    collect_from_here()
    run = partial(measure, opened, renderer, protocol=protocol.value, baselines=baselines, sample=sample)
    evaluated = run() if cluster is None else _on_ray(run, cluster, opened, renderer)
    if at is None:
        keep(evaluated, opened, renderer)
    renderer.show(report_view(evaluated))
    for path in _write_files(evaluated, report=report, results=results, plot=plot):
        renderer.info(f"wrote {path}")


def _on_ray(
    run: Callable[..., EvalReport], cluster: ClusterOptions, opened: OpenProject, renderer: Renderer
) -> EvalReport:
    from melo_cli.distributed import RayInference, ray_session

    with ray_session(cluster, renderer) as session:
        return run(inference=RayInference(session, opened))


def _write_files(
    evaluated: EvalReport, *, report: Path | None, results: Path | None, plot: Path | None
) -> Sequence[Path]:
    from melo_cli.evaluation import plot_retention, write_page, write_results

    if report is not None:
        write_page(evaluated, report)
    if results is not None:
        write_results(evaluated.results, results)
    if plot is not None:
        plot_retention(evaluated, plot)
    return [path for path in (report, results, plot) if path is not None]


def _check_output(option: str, path: Path) -> None:
    """Before the work, which may take long."""
    (called, endings), where = _ENDINGS[option], f"{option} {path}"
    if path.suffix.lower() not in endings:
        known = " or ".join(filter(None, [", ".join(endings[:-1]), endings[-1]]))
        raise MeloError(f"{called} {known}", where=where, hint="change the ending")
    if not path.parent.is_dir():
        raise MeloError("there is no such folder", where=where, hint=f"make {path.parent} first")
    is_new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise MeloError(f"the file cannot be written ({error.strerror})", where=where) from error
    if is_new:
        path.unlink()
