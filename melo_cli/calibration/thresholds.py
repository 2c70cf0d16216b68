"""How sure the router has to be: the least that keeps every kind of false fire within its bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melo_cli.scope.simulation import Outcome

ASKING = ("rephrase", "noisy")
"""Kinds of queries that ask for an edit; the others must not fire."""
_ENOUGH = 50
"""Negatives of a kind from which on a project's own say more than the corpus."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one model, on the corpus and on a project's own data."""

    corpus: Sequence[Outcome]
    own: Sequence[Outcome] = ()


def threshold_within(evidence: Evidence, bounds: Mapping[str, float]) -> float:
    """The least log-odds that let no more of each kind of negatives fire than its bound, by either evidence.

    A query fires from the threshold on. It lies half way to the next query that was seen, so that rounding
    moves none across. Infinite where no query that asks for an edit would reach it: then an edit answers
    its own prompt alone.

    Args:
        bounds: share that may fire by kind.
    """
    least = max(
        (_least(some, bounds[kind]) for kind in bounds for some in _negatives(evidence, kind)),
        default=math.inf,
    )
    every = (*evidence.corpus, *evidence.own)
    above = [outcome.logit for outcome in every if outcome.logit > least]
    reached = any(outcome.logit > least and outcome.right for outcome in every if outcome.kind in ASKING)
    return (least + min(above)) / 2 if reached else math.inf


def shares(outcomes: Sequence[Outcome], threshold: float) -> dict[str, float]:
    """By kind: of queries that ask for an edit the share led to it, of the others the share that fires."""
    by_kind: dict[str, list[bool]] = {}
    for outcome in outcomes:
        fires = outcome.logit >= threshold
        by_kind.setdefault(outcome.kind, []).append(fires and (outcome.right or outcome.kind not in ASKING))
    return {kind: sum(some) / len(some) for kind, some in by_kind.items()}


def _negatives(evidence: Evidence, kind: str) -> list[list[float]]:
    """The log-odds of a kind's negatives, by the evidence that counts for it."""
    own = [outcome.logit for outcome in evidence.own if outcome.kind == kind]
    corpus = [outcome.logit for outcome in evidence.corpus if outcome.kind == kind]
    return [some for some in ((own,) if len(own) >= _ENOUGH else (own, corpus)) if some]


def _least(logits: Sequence[float], bound: float) -> float:
    """The largest log-odds that must not fire."""
    allowed = int(bound * len(logits) + 1e-9)
    ranked = sorted(logits, reverse=True)
    return ranked[allowed] if allowed < len(ranked) else -math.inf
