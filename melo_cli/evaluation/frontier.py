"""Generality against false fires at other radii or thresholds, computed from the measured probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melo_cli.evaluation.decision_measures import RADII, Measure
from melo_cli.evaluation.results import Result

# Points of a curve; more show nothing.
_POINTS = 200


@dataclass(frozen=True)
class FrontierPoint:
    """Generality and false fires at one limit.

    Attributes:
        limit: what all radii are multiplied by, or the probability from which on an edit answers.
        reached: share of rephrases that an edit which wants their answer would answer.
        fired: share of the negatives that some edit would answer.
        present: whether this is the limit in force.
    """

    limit: float
    reached: float
    fired: float
    present: bool


def frontier(
    rephrases: Sequence[Result], negatives: Sequence[Result], measure: Measure = RADII
) -> list[FrontierPoint]:
    """The curve from the strictest limit to the widest, the present one among them.

    Each probe counts by one edit, the one that fired or else the nearest: the curve is exact at the present
    limit, and close near it.

    Args:
        rephrases: results of prompts that should reach their edit.
        negatives: results of prompts that no edit should answer.
        measure: what the rule compares with its limit.

    Returns:
        The points in that order; none where there is nothing to compare.
    """
    ours = [(value, bool(_right(row))) for row in rephrases if (value := measure.of(row)) is not None]
    theirs = [value for row in negatives if (value := measure.of(row)) is not None]
    if not ours or not theirs:
        return []
    every = np.array([*(value for value, _ in ours), *theirs])
    steps = np.unique(np.append(every[np.isfinite(every)], measure.limit))
    if len(steps) > _POINTS:
        chosen = np.linspace(0, len(steps) - 1, _POINTS).round().astype(int)
        steps = np.union1d(steps[chosen], [measure.limit])
    right = [value for value, is_right in ours if is_right]
    return [
        FrontierPoint(
            limit,
            reached=sum(measure.fires(value, limit) for value in right) / len(ours),
            fired=sum(measure.fires(value, limit) for value in theirs) / len(theirs),
            present=limit == measure.limit,
        )
        for limit in (steps[::-1] if measure.rising else steps).tolist()
    ]


def best_within(points: Sequence[FrontierPoint], false_fires: float) -> FrontierPoint | None:
    """The point that reaches most within a bound on false fires.

    Args:
        points: the curve.
        false_fires: largest share of negatives that may fire, from 0 to 1.

    Returns:
        The point; None where none is within the bound.
    """
    allowed = [point for point in points if point.fired <= false_fires]
    return max(allowed, key=lambda point: (point.reached, -point.fired), default=None)


def ceiling(rephrases: Sequence[Result]) -> float:
    """Share of rephrases whose edit, fired or else the nearest, is right: what no limit exceeds."""
    return sum(bool(_right(row)) for row in rephrases) / len(rephrases) if rephrases else math.nan


def _right(row: Result) -> bool | None:
    return row.fired_right if row.fired else row.nearest_right
