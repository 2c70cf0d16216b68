"""An evaluation's figures: base beside edited, each share with its count and interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.answering import TokenScores, perplexity
from melo_cli.base_model import ModelKind
from melo_cli.evaluation.asking import Answered
from melo_cli.evaluation.shares import mean, token_f1, wilson_interval

JSONObject = dict[str, Any]


@dataclass(frozen=True)
class EvalReport:
    """What `melo eval` prints.

    Attributes:
        base, edited: the figures by name, as in `melo eval --json`.
        results: one row an edit, in the order in which they were made.
    """

    project: str
    task: str
    snapshot: int
    protocol: str
    edits: int
    base: JSONObject
    edited: JSONObject
    results: list[JSONObject]

    def to_json(self) -> JSONObject:
        """The JSON document of `melo eval --json`."""
        return {
            "project": self.project,
            "task": self.task,
            "snapshot": self.snapshot,
            "protocol": self.protocol,
            "edits": self.edits,
            "base": self.base,
            "edited": self.edited,
        }


@dataclass(frozen=True)
class AnsweredSets:
    """All probes, answered."""

    edits: list[Answered]
    rephrases: list[Answered]
    unrelated: list[Answered]
    accurate: list[Answered]


@dataclass(frozen=True)
class _Side:
    """Reads either model's half of an answered probe."""

    answer: Callable[[Answered], str]
    scores: Callable[[Answered], TokenScores | None]
    is_base: bool


_BASE = _Side(lambda row: row.base, lambda row: row.base_scores, is_base=True)
_EDITED = _Side(lambda row: row.edited, lambda row: row.edited_scores, is_base=False)


def metrics(sets: AnsweredSets, kind: ModelKind, *, edited: bool) -> JSONObject:
    """The METRICS object of one model.

    Shares by generation are exact matches; by teacher forcing, the mean share of target tokens that are
    the model's first choice (the literature's accuracy, which flatters). A classifier answers at once, so it
    has no teacher-forced share. Perplexities are weighted by token, for decoder-only models.
    """
    side = _EDITED if edited else _BASE
    with_truth = [row for row in sets.unrelated if row.probe.truth is not None]
    causal = kind is ModelKind.CAUSAL
    return {
        "edit_success": _share(sets.edits, side, kind),
        "generality": _share(sets.rephrases, side, kind),
        "locality_truth": _share(with_truth, side, kind),
        "locality_agreement": None if side.is_base else _agreement(sets.unrelated, kind),
        "fired_edits": _fired(sets.edits, side),
        "fired_rephrases": _fired(sets.rephrases, side),
        "fired_unrelated": _fired(sets.unrelated, side),
        "perplexity_edits": _perplexity(sets.edits, side) if causal else None,
        "perplexity_unrelated": _perplexity(with_truth, side) if causal else None,
        "arr": _perplexity(sets.accurate, side) if causal else None,
    }


def edit_rows(edits: Sequence[Answered]) -> list[JSONObject]:
    """One row an edit, in order: what was asked, what both models answer, and whether it is right."""
    return [
        {
            "edit_id": row.probe.edit_id,
            "prompt": row.probe.prompt,
            "target": row.probe.truth,
            "base": row.base,
            "edited": row.edited,
            "fired": row.fired,
            "base_right": row.right(row.base),
            "edited_right": row.right(row.edited),
            "teacher_forced": row.edited_scores.accuracy if row.edited_scores else None,
        }
        for row in edits
    ]


def _share(rows: Sequence[Answered], side: _Side, kind: ModelKind) -> JSONObject | None:
    if not rows:
        return None
    right = sum(row.right(side.answer(row)) for row in rows)
    forced = [scores.accuracy for row in rows if (scores := side.scores(row)) is not None]
    figures: JSONObject = {
        "generation": right / len(rows),
        "teacher_forced": mean(forced) if kind.generates else None,
        "n": len(rows),
        "ci95": list(wilson_interval(right, len(rows))),
    }
    if kind.generates:
        figures["f1"] = mean([token_f1(side.answer(row), row.probe.truth or "") for row in rows])
    return figures


def _agreement(rows: Sequence[Answered], kind: ModelKind) -> JSONObject | None:
    if not rows:
        return None
    same = sum(row.agrees for row in rows)
    forced = [
        float(row.edited_scores.choices == row.base_scores.choices)
        for row in rows
        if row.base_scores is not None and row.edited_scores is not None
    ]
    return {
        "generation": same / len(rows),
        "teacher_forced": mean(forced) if kind.generates else None,
        "n": len(rows),
        "ci95": list(wilson_interval(same, len(rows))),
    }


def _fired(rows: Sequence[Answered], side: _Side) -> float | None:
    return None if side.is_base else mean([float(row.fired) for row in rows])


def _perplexity(rows: Sequence[Answered], side: _Side) -> float | None:
    return perplexity([scores for row in rows if (scores := side.scores(row)) is not None])
