"""The page's charts with the words that make them readable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from melo_cli.evaluation.charts import Chart, frontier_chart, group_count, nearness_chart, retention_chart
from melo_cli.evaluation.decision_measures import measure_of
from melo_cli.evaluation.frontier import best_within, ceiling, frontier
from melo_cli.evaluation.page.formatting import KINDS, sentence
from melo_cli.evaluation.report import EvalReport

# Kinds of negatives, and the share of them that may fire at the best limit that the text names.
_NEGATIVES = (
    ("same_subject", "other questions about the subject", 0.1),
    ("hard", "hard negatives", 0.05),
    ("unrelated", "unrelated prompts", 0.01),
)


@dataclass(frozen=True)
class Section:
    """A chart under its heading, with the words that explain it."""

    title: str
    words: str
    chart: Chart


def sections(report: EvalReport) -> Iterator[Section]:
    """All that the report has something to show of."""
    yield _retention(report)
    for section in (_nearness(report), _other_limits(report)):
        if section is not None:
            yield section


def _retention(report: EvalReport) -> Section:
    """Whether early edits outlive later ones."""
    edits = report.of_kind("edit")
    return Section(
        "Do early edits survive later ones?",
        "Every edit is asked after the last was made. Each point is one of "
        f"{group_count(len(edits))} groups of neighbours in the order of making, the band its 95% interval, "
        "the dashed line the unedited model. A line that is low on the left would mean that old edits are "
        "forgotten.",
        retention_chart(edits),
    )


def _nearness(report: EvalReport) -> Section | None:
    """Where the prompts of each kind lie, seen from the edits; nothing in a project without neurons."""
    measure = measure_of(report.results)
    if all(measure.of(row) is None for row in report.results):
        return None
    chart = nearness_chart([(kind, name, report.of_kind(kind)) for kind, name in KINDS.items()], measure)
    if measure.rising:
        return Section(
            "How sure the router is",
            "For each prompt and its nearest edit the router computes the probability that both ask the "
            f"same. From {measure.limit:.2f} on, the edit answers. Edits and rephrases should lie right of "
            "the line, all others left of it.",
            chart,
        )
    radii = sorted(row.radius for row in report.results if row.radius is not None)
    range_text = f"{radii[0]:.3g} to {radii[-1]:.3g}, {radii[len(radii) // 2]:.3g} in the middle"
    described = f"{radii[0]:.3g} everywhere" if radii[0] == radii[-1] else range_text
    return Section(
        "How far prompts are from edits",
        "An edit answers the prompts inside its radius. Edits and rephrases should lie left of the line, "
        "all others right of it. Distances are measured between keys (the model's own view of a prompt) and "
        f"divided by the radius, which is {described}. The last bar holds all that is farther.",
        chart,
    )


def _other_limits(report: EvalReport) -> Section | None:
    """The frontier; nothing where rephrases or negatives are missing."""
    rephrases, measure = report.of_kind("rephrase"), measure_of(report.results)
    curves = [
        (kind, name, frontier(rephrases, report.of_kind(kind), measure)) for kind, name, _ in _NEGATIVES
    ]
    if not any(points for _, _, points in curves):
        return None
    described = []
    for (_, name, allowed), (_, _, points) in zip(_NEGATIVES, curves, strict=True):
        best = best_within(points, allowed)
        if best is not None:
            limit = (
                f"from a probability of {best.limit:.2f} on"
                if measure.rising
                else f"radii times {best.limit:.2f}"
            )
            described.append(
                f"with at most {allowed:.0%} of the {name} firing, {best.reached:.1%} of the rephrases can "
                f"be reached ({limit})"
            )
    named, wider, moves = (
        ("threshold", "A lower threshold reaches", "lets the threshold move")
        if measure.rising
        else ("radius", "Larger radii reach", "scales all radii together")
    )
    return Section(
        f"What another {named} would give",
        f"{wider} more rephrases (up) and fire on more prompts that should be left alone (right). Each curve "
        f"{moves}; the marked point is how it is now, the dotted line what no {named} can exceed. "
        f"{sentence('; '.join(described))}",
        frontier_chart(curves, ceiling(rephrases)),
    )
