"""An evaluation's figures: base beside edited, each share with its count and interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melo_cli.evaluation.probing import ProbeAnswers
from melo_cli.evaluation.protocols import MADE, measured
from melo_cli.evaluation.results import Result
from melo_cli.evaluation.statistics import mean, token_f1, wilson_interval
from melo_cli.models.base_model import ModelKind
from melo_cli.runtime.inference import TokenScores, perplexity

JSONObject = dict[str, Any]


@dataclass(frozen=True)
class BaselineReport:
    """Another editor on the same edits and probes.

    Attributes:
        figures: METRICS.
        settings: what it was trained with, and how.
        train_seconds, ask_seconds: wall time of making the edits and of asking the probes.
    """

    figures: JSONObject
    settings: JSONObject
    train_seconds: float
    ask_seconds: float

    def to_json(self) -> JSONObject:
        """One entry of `baselines` in `melo eval --json`."""
        seconds = {"train": round(self.train_seconds, 3), "ask": round(self.ask_seconds, 3)}
        return {**self.figures, "settings": self.settings, "seconds": seconds}


@dataclass(frozen=True)
class EvalReport:
    """What `melo eval` prints, writes and draws.

    Attributes:
        model: the base model, as the project names it.
        base, edited: the figures by name, as in `melo eval --json`.
        seconds: wall time of asking base and edited model.
        sampled_from: number of edits that the `edits` that were asked were drawn from; None if all were.
        results: one row a probe, the edits first, each group in the order in which the edits were made.
        baselines: other editors by name.
    """

    project: str
    task: str
    snapshot: int
    protocol: str
    model: str
    edits: int
    base: JSONObject
    edited: JSONObject
    seconds: float
    results: list[Result]
    sampled_from: int | None = None
    baselines: Mapping[str, BaselineReport] = field(default_factory=dict)

    @property
    def made(self) -> dict[str, str]:
        """How the prompts that must stay came about, by kind; kinds of which none was asked are left out."""
        rows = {kind: self.of_kind(kind) for kind in (*MADE, "unrelated")}
        return {kind: _sources(kind, some) for kind, some in rows.items() if some}

    @property
    def asked(self) -> str:
        """How many edits were asked of, as words."""
        if self.sampled_from is None:
            return f"{self.edits} edits"
        return f"{self.edits} of {self.sampled_from} edits"

    @property
    def measured(self) -> str:
        """What the protocol measures, in one line."""
        return measured(self.protocol, self.task)

    def columns(self) -> dict[str, JSONObject]:
        """METRICS by the name of the model: base, edited, then the baselines."""
        others = {name: baseline.figures for name, baseline in self.baselines.items()}
        return {"base": self.base, "edited": self.edited, **others}

    def of_kind(self, kind: str) -> list[Result]:
        """The rows of one kind of probe, in order."""
        return [row for row in self.results if row.kind == kind]

    def to_json(self) -> JSONObject:
        """The JSON document of `melo eval --json`."""
        return {
            "project": self.project,
            "task": self.task,
            "snapshot": self.snapshot,
            "protocol": self.protocol,
            "measures": self.measured,
            "made": self.made,
            "edits": self.edits,
            "sampled_from": self.sampled_from,
            "base": self.base,
            "edited": self.edited,
            "seconds": round(self.seconds, 3),
            "baselines": {name: baseline.to_json() for name, baseline in self.baselines.items()},
        }


@dataclass(frozen=True)
class AnswerSets:
    """All probes, answered."""

    edits: list[ProbeAnswers]
    rephrases: list[ProbeAnswers]
    same_subject: list[ProbeAnswers]
    hard: list[ProbeAnswers]
    unrelated: list[ProbeAnswers]
    accurate: list[ProbeAnswers]

    def groups(self) -> list[list[ProbeAnswers]]:
        """The groups in the order of `results.KINDS`."""
        return [self.edits, self.rephrases, self.same_subject, self.hard, self.unrelated, self.accurate]


@dataclass(frozen=True)
class _Side:
    """Reads either model's half of an answered probe."""

    answer: Callable[[ProbeAnswers], str]
    scores: Callable[[ProbeAnswers], TokenScores | None]
    is_base: bool


_BASE = _Side(lambda row: row.base, lambda row: row.base_scores, is_base=True)
_EDITED = _Side(lambda row: row.edited, lambda row: row.edited_scores, is_base=False)


def metrics(sets: AnswerSets, kind: ModelKind, *, edited: bool) -> JSONObject:
    """The METRICS object of one model.

    Shares by generation are exact matches; by teacher forcing, the mean share of target tokens that are
    the model's first choice (the literature's accuracy, which flatters). A classifier answers at once, so it
    has no teacher-forced share. Perplexities are weighted by token, for decoder-only models. What fires and
    which neuron is nearest is null for a model without a router. `nearest_right`, the share of rephrases
    whose nearest neuron's edit wants their answer, is the generality that no radius or threshold can exceed.
    `unfired_checked` and `unfired_agree` count what `evaluate` asked again.

    Args:
        sets: the answers by kind of probe.
        kind: the kind of the model.
        edited: whether to count the answers of the edited model or of the base.

    Returns:
        The figures by name; None where the task or the model has none.
    """
    side = _EDITED if edited else _BASE
    with_truth = _with_truth(sets.unrelated)
    causal = kind is ModelKind.CAUSAL
    return {
        "edit_success": _share(sets.edits, side, kind),
        "generality": _share(sets.rephrases, side, kind),
        "locality_truth": _share(with_truth, side, kind),
        "locality_agreement": _agreement(sets.unrelated, side, kind),
        "hard_truth": _share(_with_truth(sets.hard), side, kind),
        "hard_agreement": _agreement(sets.hard, side, kind),
        "same_subject_truth": _share(_with_truth(sets.same_subject), side, kind),
        "same_subject_agreement": _agreement(sets.same_subject, side, kind),
        "fired_edits": _routed_share(sets.edits, side, lambda row: row.fired),
        "fired_rephrases": _routed_share(sets.rephrases, side, lambda row: row.fired),
        "fired_same_subject": _routed_share(sets.same_subject, side, lambda row: row.fired),
        "fired_hard": _routed_share(sets.hard, side, lambda row: row.fired),
        "fired_unrelated": _routed_share(sets.unrelated, side, lambda row: row.fired),
        "nearest_right": _routed_share(sets.rephrases, side, lambda row: row.nearest_right),
        "perplexity_edits": _perplexity(sets.edits, side) if causal else None,
        "perplexity_unrelated": _perplexity(with_truth, side) if causal else None,
        "arr": _perplexity(sets.accurate, side) if causal else None,
        "unfired_checked": None,
        "unfired_agree": None,
    }


def _with_truth(rows: Sequence[ProbeAnswers]) -> list[ProbeAnswers]:
    return [row for row in rows if row.probe.truth is not None]


def _sources(kind: str, rows: Sequence[Result]) -> str:
    made = sum(row.made for row in rows)
    parts = [f"{len(rows) - made} given by the data"] if made < len(rows) else []
    parts += [f"{made} made: {MADE[kind]}"] if made else []
    return ", ".join(parts)


def _share(rows: Sequence[ProbeAnswers], side: _Side, kind: ModelKind) -> JSONObject | None:
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
        figures["f1"] = mean([_f1(row, side) for row in rows])
    return figures


def _f1(row: ProbeAnswers, side: _Side) -> float:
    """F1 with the answer that is nearest among those that count as right, as SQuAD takes it."""
    return max(token_f1(side.answer(row), text) for text in (row.probe.truth or "", *row.probe.aliases))


def _agreement(rows: Sequence[ProbeAnswers], side: _Side, kind: ModelKind) -> JSONObject | None:
    if not rows or side.is_base:
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


def _routed_share(
    rows: Sequence[ProbeAnswers], side: _Side, holds: Callable[[ProbeAnswers], bool]
) -> float | None:
    if side.is_base or any(row.route is None for row in rows):
        return None
    return mean([float(holds(row)) for row in rows])


def _perplexity(rows: Sequence[ProbeAnswers], side: _Side) -> float | None:
    return perplexity([scores for row in rows if (scores := side.scores(row)) is not None])
