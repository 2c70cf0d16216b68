"""Generality against false fires, if all radii were scaled by one factor: from distances alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melo_cli.evaluation.results import Result

# Points of a curve; more show nothing.
_POINTS = 200


@dataclass(frozen=True)
class FrontierPoint:
    """What would be reached, and what would fire, with every radius times `factor`.

    Attributes:
        reached: share of rephrases inside the radius of an edit that wants their answer.
        fired: share of the negatives inside some edit's radius.
    """

    factor: float
    reached: float
    fired: float


def frontier(rephrases: Sequence[Result], negatives: Sequence[Result]) -> list[FrontierPoint]:
    """The curve from the smallest factor to the largest, the present radii (factor 1) among them.

    Each probe counts by one cluster, the one that fired or else its nearest neuron's: the curve is exact at
    factor 1, and close near it.

    Returns:
        No point where there is nothing to compare.
    """
    ours = [(row.radii, bool(_right(row))) for row in rephrases if row.radii is not None]
    theirs = [row.radii for row in negatives if row.radii is not None]
    if not ours or not theirs:
        return []
    every = np.array([*(radii for radii, _ in ours), *theirs])
    steps = np.unique(np.append(every[np.isfinite(every)], 1.0))
    if len(steps) > _POINTS:
        chosen = np.linspace(0, len(steps) - 1, _POINTS).round().astype(int)
        steps = np.union1d(steps[chosen], [1.0])
    right = np.array([radii for radii, is_right in ours if is_right])
    fired = np.array(theirs)
    return [
        FrontierPoint(
            float(factor),
            reached=float((right <= factor).sum()) / len(ours),
            fired=float((fired <= factor).mean()),
        )
        for factor in steps
    ]


def best_within(points: Sequence[FrontierPoint], false_fires: float) -> FrontierPoint | None:
    """The point that reaches most with at most this share of false fires."""
    allowed = [point for point in points if point.fired <= false_fires]
    return max(allowed, key=lambda point: (point.reached, -point.fired), default=None)


def ceiling(rephrases: Sequence[Result]) -> float:
    """Share of rephrases whose cluster is of the right answer: what no factor exceeds."""
    return sum(bool(_right(row)) for row in rephrases) / len(rephrases) if rephrases else math.nan


def _right(row: Result) -> bool | None:
    return row.fired_right if row.fired else row.nearest_right
