"""The cells of a run's table, for the terminal, for `table.md` and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melo_cli.bench.advice import advice, conclusions
from melo_cli.bench.questions import KINDS
from melo_cli.bench.report import BASE, BenchReport
from melo_cli.bench.scoring import equals_one
from melo_cli.units import percent

HOLDING = "Answers that contain the target, whatever stands around it within 24 tokens:"


def columns(report: BenchReport) -> list[str]:
    """The heads: the method, a column a kind, then what an edit costs."""
    return ["method", *(KINDS[kind].column for kind in report.kinds), "s/edit", "KB/edit"]


def rows(report: BenchReport) -> list[list[str]]:
    """One row a method, shares in percent; of the base what it has right is the data's own answer."""
    return [
        [
            name,
            *(_share(report, name, kind) for kind in report.kinds),
            _number(summary.get("seconds_an_edit")),
            _number(summary["bytes_an_edit"] / 1024 if summary.get("bytes_an_edit") is not None else None),
        ]
        for name, summary in report.summaries.items()
    ]


def counts(report: BenchReport) -> list[str]:
    """How many questions each column counts."""
    return ["n", *(str(report.figure(BASE, kind)["n"]) for kind in report.kinds), "", ""]


def abilities(report: BenchReport) -> dict[str, Mapping[str, Any]]:
    """What the model can do besides, by method, where it was measured."""
    return {name: summary["ability"] for name, summary in report.summaries.items() if summary.get("ability")}


def holding_table(report: BenchReport) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the answers that contain the target, whatever stands around it, of the kinds whose
    columns count exact answers."""
    kinds = [kind for kind in report.kinds if KINDS[kind].matches is equals_one and not KINDS[kind].keeps]
    return ["method", *(KINDS[kind].column for kind in kinds)], [
        [name, *(percent(report.figure(name, kind)["holds"]) for kind in kinds)] for name in report.summaries
    ]


def write_table(report: BenchReport, path: Path) -> None:
    """Write `table.md`: the figures with how they came about."""
    plan = report.plan
    lines = [
        f"# {plan.suite.name}: {plan.edits} edits of {Path(plan.model).name}",
        "",
        f"{plan.suite.words[0].upper()}{plan.suite.words[1:]}. Shares in percent by greedy generation after "
        f"all edits, asked of {min(plan.ask, plan.edits)} of them.",
        "",
        *_markdown(columns(report), [counts(report), *rows(report)]),
        "",
        *(f"- {KINDS[kind].column}: {KINDS[kind].words}." for kind in report.kinds),
        "",
        *(f"- {name}: {summary['words']}." for name, summary in report.summaries.items()),
    ]
    lines += ["", HOLDING, "", *_markdown(*holding_table(report))]
    if abilities(report):
        lines += ["", *_markdown(*ability_table(report))]
    lines += ["", *(f"- {sentence}." for sentence in (*conclusions(report), *advice(report)))]
    lines += ["", "```", *report.commands, "```", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def ability_table(report: BenchReport) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what the model can do besides its edits."""
    heads = ["method", "perplexity of prose", "choices right"]
    return heads, [
        [name, _number(ability["perplexity"]), percent(ability["choices_right"])]
        for name, ability in abilities(report).items()
    ]


def _share(report: BenchReport, method: str, kind: str) -> str:
    if method == BASE and KINDS[kind].keeps:
        return "-"
    return percent(report.figure(method, kind)["right"])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
