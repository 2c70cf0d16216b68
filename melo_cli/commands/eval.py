"""`melo eval`: base against edited, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melo_cli.commands._options import AtOption, BaseOption, BlockCacheOption, JsonOption, ProjectOption
from melo_cli.commands.rendering.figures import show_report
from melo_cli.errors import MeloError
from melo_cli.projects import choose_project
from melo_cli.terminal import Terminal

_PLOTS = (".png", ".svg", ".pdf")


def evaluate(
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="Take the project whose recipe has this task."),
    ] = None,
    project: ProjectOption = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw retention by edit order: .png, .svg or .pdf."),
    ] = None,
    at: AtOption = None,
    base: BaseOption = None,
    block_cache_mb: BlockCacheOption = 256,
    as_json: JsonOption = False,
) -> None:
    """Measure edit success, generality and locality of a project, beside its base model."""
    terminal = Terminal(json=as_json)
    if plot is not None:
        _check_plot(plot)
    chosen = choose_project(project, task=task)
    terminal.heading(f"project {chosen}")
    from melo_cli.evaluation import evaluate as measure
    from melo_cli.evaluation import plot_retention
    from melo_cli.loading import open_project

    opened = open_project(chosen.path, at=at, base=base, block_cache_mb=block_cache_mb)
    report = measure(opened, terminal)
    if as_json:
        terminal.document(report.to_json())
    else:
        show_report(terminal, report)
    if plot is not None:
        plot_retention(report, plot)
        terminal.info(f"wrote {plot}")


def _check_plot(path: Path) -> None:
    """Before the work, which may take long."""
    if path.suffix.lower() not in _PLOTS:
        raise MeloError(
            f"a plot is {', '.join(_PLOTS[:-1])} or {_PLOTS[-1]}",
            where=f"--plot {path}",
            mend="change the ending",
        )
    if not path.parent.is_dir():
        raise MeloError("there is no such folder", where=f"--plot {path}", mend=f"make {path.parent} first")
