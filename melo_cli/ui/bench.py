"""`melo bench`: one row a method, one column a kind of questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melo_cli.ui.elements import Element, Fields, Heading, Note, Table, View

if TYPE_CHECKING:
    from melo_cli.bench import BenchReport

_MOST_COLUMNS = 9
"""A table of more columns is turned round, to fit 80 columns."""


def bench_view(report: BenchReport) -> View:
    """The figures, what is counted, and who is best at what."""
    from melo_cli.bench import table
    from melo_cli.bench.advice import advice, conclusions
    from melo_cli.bench.questions import KINDS

    plan = report.plan
    heads, rows = [*table.columns(report)], [table.counts(report), *table.rows(report)]
    if len(heads) > _MOST_COLUMNS:
        turned = [list(column) for column in zip(heads, *rows, strict=True)]
        heads, rows = turned[0], turned[1:]
    elements: list[Element] = [
        Heading(f"{plan.suite.name}, {plan.edits} edits, asked of {min(plan.ask, plan.edits)}"),
        Table(heads, rows, right=frozenset(heads[1:])),
        Note("shares in %, by greedy generation after all edits"),
        Fields([(KINDS[kind].column, KINDS[kind].words) for kind in report.kinds]),
    ]
    more = [(table.HOLDING, table.holding_table(report))]
    more += [("", table.ability_table(report))] if table.abilities(report) else []
    for title, (names, cells) in more:
        elements.append(Table(names, cells, title=title or None, right=frozenset(names[1:])))
    elements += [Note(sentence) for sentence in conclusions(report)]
    elements.append(Note("; ".join(advice(report))))
    document = {**report.to_json(), "conclusions": conclusions(report), "advice": advice(report)}
    return View(elements, document)
