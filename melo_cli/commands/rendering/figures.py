"""METRICS of several models side by side: `melo eval`, and what a merge keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Table, Terminal

if TYPE_CHECKING:
    from melo_cli.evaluation import EvalReport

Figures = Mapping[str, Mapping[str, Any]]

_SHARES = {
    "edit_success": "edit success",
    "generality": "generality",
    "locality_truth": "locality (truth)",
    "locality_agreement": "locality (base)",
}
_ACCURACIES = {
    "edit_success": "accuracy, edits",
    "generality": "accuracy, rephr.",
    "locality_truth": "accuracy, unrel.",
    "locality_agreement": "as base, unrel.",
}
_FIRED = {
    "fired_edits": ("fired, edits", "edit_success"),
    "fired_rephrases": ("fired, rephr.", "generality"),
    "fired_unrelated": ("fired, unrel.", "locality_agreement"),
}
_PERPLEXITIES = {
    "perplexity_edits": "perpl., edits",
    "perplexity_unrelated": "perpl., unrel.",
    "arr": "ARR (perplexity)",
}
NOTE = "shares in %, by greedy generation and exact match, with their 95% interval"


def show_report(terminal: Terminal, report: EvalReport) -> None:
    """The table of `melo eval`."""
    terminal.heading(
        f"task {report.task}, snapshot {report.snapshot}, protocol {report.protocol}, {report.edits} edits"
    )
    terminal.table(figures_table(report.task, {"base": report.base, "edited": report.edited}))
    terminal.note(NOTE)


def figures_table(task: str, figures: Figures) -> Table:
    """One row a figure, one column a model; a figure that the task does not have gets no row.

    Args:
        figures: METRICS by the name of the model.
    """
    rows = [*_share_rows(task, figures), *_fired_rows(figures), *_perplexity_rows(figures)]
    return Table(("metric", "n", *figures), rows, right=frozenset(("n", *figures)))


def _share_rows(task: str, figures: Figures) -> Iterator[Sequence[str]]:
    for metric, label in (_ACCURACIES if task == "scotus" else _SHARES).items():
        shares = [models[metric] for models in figures.values()]
        yield from _row(label, shares, lambda share: _percent_in(share["generation"], share["ci95"]), n=True)
        yield from _row("  teacher-forced", shares, lambda share: _percent(share["teacher_forced"]))
        if task == "zsre":
            yield from _row("  F1", shares, lambda share: _percent(share.get("f1")))


def _fired_rows(figures: Figures) -> Iterator[Sequence[str]]:
    from melo_cli.evaluation.shares import wilson_interval

    for metric, (label, counted) in _FIRED.items():
        shares = [
            {
                "share": models[metric],
                "n": models[counted]["n"],
                "ci95": wilson_interval(models[metric] * models[counted]["n"], models[counted]["n"]),
            }
            if models[metric] is not None
            else None
            for models in figures.values()
        ]
        yield from _row(label, shares, lambda share: _percent_in(share["share"], share["ci95"]), n=True)


def _perplexity_rows(figures: Figures) -> Iterator[Sequence[str]]:
    for metric, label in _PERPLEXITIES.items():
        yield from _row(label, [models[metric] for models in figures.values()], _number)


def _row(
    label: str, values: Sequence[Any], shown: Callable[[Any], str], *, n: bool = False
) -> Iterator[Sequence[str]]:
    """The row, unless no model has the figure."""
    cells = [shown(value) if value is not None else "" for value in values]
    if any(cells):
        counts = {str(value["n"]) for value in values if value is not None} if n else {""}
        yield (label, "/".join(sorted(counts)), *(cell or "-" for cell in cells))


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _percent_in(share: float, interval: Sequence[float]) -> str:
    return f"{_percent(share)} ({_percent(interval[0])}-{_percent(interval[1])})"


def _percent(share: float | None) -> str:
    """With one decimal; 100 and 0 stand for all and none alone."""
    if share is None:
        return ""
    if share in (0.0, 1.0):
        return f"{share:.0%}".rstrip("%")
    return f"{min(max(100 * share, 0.1), 99.9):.1f}"
