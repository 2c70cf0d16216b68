"""The failures that a reader of the report should see first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from melo_cli.evaluation.decision_measures import measure_of
from melo_cli.evaluation.report import EvalReport
from melo_cli.evaluation.results import Result

_SHOWN = 8


@dataclass(frozen=True)
class Failures:
    """One kind of failure.

    Attributes:
        title, words: the heading, and what it means and how it is sorted.
        asks_truth: whether the truth was wanted; else the base's answer was.
        count: how many there are; `rows` holds the worst of them.
    """

    title: str
    words: str
    asks_truth: bool
    count: int
    rows: Sequence[Result]


def worst_failures(report: EvalReport) -> list[Failures]:
    """Failures by kind, the worst first; kinds of which nothing was asked are left out."""
    rephrases = report.of_kind("rephrase")
    nearness = measure_of(report.results).closeness
    missed = [row for row in rephrases if not row.edited_right]
    astray = [row for row in missed if row.fired and not row.fired_right]
    unlearnt = [row for row in missed if row.fired and row.fired_right]
    beyond = [row for row in missed if not row.fired]
    groups = [
        _group(
            "Edits that do not hold",
            "The answer is not the one asked for; those farthest from it first.",
            report.of_kind("edit"),
            [row for row in report.of_kind("edit") if not row.edited_right],
            by=lambda row: row.edited_teacher_forced or 0.0,
        ),
        _group(
            "Rephrases answered by another edit",
            "They lie in the scope of an edit that wants another answer; the nearest first.",
            rephrases,
            astray,
            by=nearness,
        ),
        _group(
            "Rephrases that reached their edit and are wrong all the same",
            "The block that answered gives the prompt itself as asked, but not these words.",
            rephrases,
            unlearnt,
            by=nearness,
        ),
        _group(
            "Rephrases that no edit reached",
            "They lie in no edit's scope, so that the unedited model answered; the farthest first.",
            rephrases,
            beyond,
            by=lambda row: -nearness(row),
        ),
    ]
    for kind, title in (
        ("same_subject", "Other questions about an edit's subject that changed"),
        ("hard", "Hard negatives that changed"),
        ("unrelated", "Unrelated prompts that changed"),
    ):
        rows = report.of_kind(kind)
        words = "They should be answered as by the unedited model; those nearest to an edit first."
        groups.append(
            _group(title, words, rows, [row for row in rows if not row.agrees], by=nearness, truth=False)
        )
    return [group for group in groups if group is not None]


def _group(
    title: str,
    words: str,
    asked: Sequence[Result],
    failed: Sequence[Result],
    *,
    by: Callable[[Result], float],
    truth: bool = True,
) -> Failures | None:
    if not asked:
        return None
    return Failures(title, words, truth, len(failed), sorted(failed, key=by)[:_SHOWN])
