"""Fills the page's template: the table, what each method is, and what each answers to the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melo_cli.bench import table
from melo_cli.bench.advice import advice, conclusions
from melo_cli.bench.questions import KINDS
from melo_cli.bench.report import BASE, BenchReport
from melo_cli.evaluation.page.html import html_templates
from melo_cli.versions import library_versions

_TEMPLATES = Path(__file__).parent
_EXAMPLES = 5
"""Questions of a kind that are shown with all answers."""


@dataclass(frozen=True)
class _Answer:
    method: str
    text: str
    right: bool


@dataclass(frozen=True)
class _Example:
    """A question with the answers of all methods."""

    prompt: str
    wanted: str
    answers: Sequence[_Answer]


def write_page(report: BenchReport, path: Path) -> None:
    """Write the page; all text from data and models is escaped."""
    text = (
        html_templates(_TEMPLATES)
        .get_template("report.html.jinja")
        .render(
            report=report,
            plan=report.plan,
            asked=min(report.plan.ask, report.plan.edits),
            model=report.plan.model.rstrip("/").rpartition("/")[2],
            conclusions=conclusions(report),
            advice=advice(report),
            heads=table.columns(report),
            counts=table.counts(report),
            rows=table.rows(report),
            best=_best(report),
            holding=table.holding_table(report),
            holding_words=table.HOLDING,
            ability=table.ability_table(report),
            kinds={kind: KINDS[kind] for kind in report.kinds},
            examples={kind: _examples(report, kind) for kind in report.kinds},
            versions=library_versions(),
        )
    )
    path.write_text(text, encoding="utf-8", errors="replace")


def _best(report: BenchReport) -> set[tuple[str, int]]:
    """The cells that no other method's interval lies above, by method and column; none where that is all."""
    methods = len(report.summaries) - 1
    best = [(at, report.best(kind)) for at, kind in enumerate(report.kinds, start=1)]
    return {(name, at) for at, names in best for name in names if len(names) < methods}


def _examples(report: BenchReport, kind: str) -> list[_Example]:
    """Questions that the methods answer differently, evenly drawn; all questions where there are few."""
    asked = [at for at, row in enumerate(report.rows[BASE]) if row.kind == kind]
    differ = [at for at in asked if len({rows[at].right for rows in report.rows.values()}) > 1] or asked
    count = min(_EXAMPLES, len(differ))
    return [_example(report, differ[at * len(differ) // count]) for at in range(count)]


def _example(report: BenchReport, at: int) -> _Example:
    row = report.rows[BASE][at]
    wanted = "as the base" if KINDS[row.kind].keeps else " / ".join(row.truths)
    return _Example(
        row.prompt,
        wanted,
        [_Answer(name, rows[at].answer, rows[at].right) for name, rows in report.rows.items()],
    )
