"""Which clusters may answer a point, out of those that the index found: few are worth an exact distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from store.clusters import Floats, Numbers


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of a point and a cluster that may hold it or have the nearest neuron, as columns [m].

    Attributes:
        row: which point.
        number: which cluster.
        center_distance: float64, exact.
        plain: the cluster is one neuron, whose key is the center.
    """

    row: Numbers
    number: Numbers
    radius: Floats
    center_distance: Floats
    plain: NDArray[np.bool_]

    def and_also(self, other: Candidates) -> Candidates:
        """Both, one after the other."""
        return Candidates(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.number, other.number]),
            np.concatenate([self.radius, other.radius]),
            np.concatenate([self.center_distance, other.center_distance]),
            np.concatenate([self.plain, other.plain]),
        )


NO_CANDIDATES = Candidates(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.bool_)
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a point and a cluster, as columns [m]; rows ascend.

    Attributes:
        row: which point.
        slots: where the cluster stands in its set.
        clusters: what the set says of it: ``number``, ``radius``, ``spread`` and ``plain``.
        lower: the center is at least so far from the point (L2).
    """

    row: Numbers
    slots: Numbers
    clusters: NDArray[Any]
    lower: Floats

    def of(self, chosen: NDArray[np.bool_] | Numbers) -> Pairs:
        """Some of them."""
        return Pairs(self.row[chosen], self.slots[chosen], self.clusters[chosen], self.lower[chosen])

    def measured(self, center_distance: Floats) -> Candidates:
        """All of them, with the exact distances of point and center."""
        known = self.clusters
        return Candidates(self.row, known["number"], known["radius"], center_distance, known["plain"])


Measure: TypeAlias = Callable[[Numbers, Numbers], Floats]
"""Gives the exact distances of pairs of a point and the center of the cluster in a slot."""


def holding(pairs: Pairs, margins: Floats, measure: Measure) -> Candidates:
    """Those pairs whose cluster may hold its point, up to the point's margin [n] outside the ball."""
    if not len(pairs.row):
        return NO_CANDIDATES
    near = pairs.of(np.flatnonzero(pairs.lower <= pairs.clusters["radius"] + margins[pairs.row]))
    return near.measured(measure(near.row, near.slots))


def holding_or_nearest(pairs: Pairs, margins: Floats, measure: Measure) -> tuple[Candidates, Floats]:
    """Those pairs whose cluster may hold its point, or have the nearest neuron of all pairs.

    Returns:
        Also for each point [n] a distance within which a neuron was found; infinite where there is none.
    """
    best = np.full(len(margins), np.inf)
    if not len(pairs.row):
        return NO_CANDIDATES, best
    row, spread, apart = pairs.row, pairs.clusters["spread"], np.empty(len(pairs.row))
    first = _least_of_each(row, pairs.lower + spread)
    apart[first] = measure(row[first], pairs.slots[first])
    best[row[first]] = apart[first] + spread[first]
    worth = (pairs.lower <= pairs.clusters["radius"] + margins[row]) | (pairs.lower - spread <= best[row])
    worth[first] = False
    rest = np.flatnonzero(worth)
    apart[rest] = measure(row[rest], pairs.slots[rest])
    chosen = np.concatenate([first, rest])
    return pairs.of(chosen).measured(apart[chosen]), best


def _least_of_each(row: Numbers, values: Floats) -> Numbers:
    """For each row, of which equal ones stand together, the place of its least value."""
    if row[0] == row[-1]:
        return np.atleast_1d(values.argmin())
    starts = _starts(row)
    least = np.repeat(np.minimum.reduceat(values, starts), np.diff(starts, append=len(row)))
    places = np.flatnonzero(values == least)
    return places[_starts(row[places])]


def _starts(row: Numbers) -> Numbers:
    """Where a new row begins."""
    new = np.ones(len(row), np.bool_)
    np.not_equal(row[1:], row[:-1], out=new[1:])
    return np.flatnonzero(new)
