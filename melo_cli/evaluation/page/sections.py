"""The page's charts with the words that make them readable."""

from __future__ import annotations

from melo_cli.evaluation.frontier import best_within, ceiling, frontier
from melo_cli.evaluation.page.charts import distance_chart, frontier_chart, group_count, retention_chart
from melo_cli.evaluation.page.wording import KINDS, sentence
from melo_cli.evaluation.report import EvalReport

# Kinds of negatives, and the share of them that may fire where the best radii are told.
_NEGATIVES = (("hard", "hard negatives", 0.05), ("unrelated", "unrelated prompts", 0.01))


def retention(report: EvalReport) -> str:
    """Whether early edits outlive later ones."""
    edits = report.of_kind("edit")
    return _figure(
        "Do early edits survive later ones?",
        retention_chart(edits),
        "Every edit is asked after the last was made. Each point is one of "
        f"{group_count(len(edits))} groups of neighbours in the order of making, the band its 95% interval, "
        "the dashed line the unedited model. A line that is low on the left would mean that old edits are "
        "forgotten.",
    )


def distances(report: EvalReport) -> str:
    """Where the prompts of each kind lie, seen from the edits; nothing in a project without neurons."""
    radii = sorted(row.radius for row in report.results if row.radius is not None)
    if not radii:
        return ""
    spread = f"{radii[0]:.3g} to {radii[-1]:.3g}, {radii[len(radii) // 2]:.3g} in the middle"
    told = f"{radii[0]:.3g} everywhere" if radii[0] == radii[-1] else spread
    return _figure(
        "How far prompts are from edits",
        distance_chart([(kind, name, report.of_kind(kind)) for kind, name in KINDS.items()]),
        "An edit answers the prompts inside its radius. Edits and rephrases should lie left of the line, "
        "unrelated prompts and hard negatives right of it. Distances are measured between keys (the model's "
        f"own view of a prompt) and divided by the radius, which is {told}. The last bar holds all that is "
        "farther.",
    )


def other_radii(report: EvalReport) -> str:
    """The frontier; nothing where rephrases or negatives are missing."""
    rephrases = report.of_kind("rephrase")
    curves = [(kind, name, frontier(rephrases, report.of_kind(kind))) for kind, name, _ in _NEGATIVES]
    if not any(points for _, _, points in curves):
        return ""
    told = []
    for (_, name, allowed), (_, _, points) in zip(_NEGATIVES, curves, strict=True):
        best = best_within(points, allowed)
        if best is not None:
            told.append(
                f"with at most {allowed:.0%} of the {name} firing, {best.reached:.1%} of the rephrases can "
                f"be reached (radii times {best.factor:.2f})"
            )
    return _figure(
        "What another radius would give",
        frontier_chart(curves, ceiling(rephrases)),
        "Larger radii reach more rephrases (up) and fire on more prompts that they should leave alone "
        "(right). Each curve scales all radii together; the marked point is where they are now, the dotted "
        f"line what no radius can exceed. {sentence('; '.join(told))}",
    )


def _figure(title: str, chart: str, words: str) -> str:
    return (
        f"<h2>{title}</h2>\n<figure><figcaption>{words}</figcaption><div class=scroll>{chart}</div></figure>"
    )
