"""A set of clusters that can be searched and changed.

It keeps what a search needs in arrays, so that a query costs no Python loop over clusters, and makes a
`Cluster` only when a rule asks for one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.candidates import NO_CANDIDATES, Candidates, Pairs, holding, holding_or_nearest
from store.clusters import Cluster, Floats, Near, Neurons, Numbers, distances, row_norms, with_rounding
from store.deltas import NO_CLUSTERS, ClusterDelta, ClusterTable
from store.found import Found, with_room
from store.index import CenterIndex, Matrix
from store.records import Vector

_ROW = np.dtype(
    [("number", "i8"), ("label", "i8"), ("radius", "f8"), ("spread", "f8"), ("reach", "f8"), ("plain", "?")]
)
_NUMBER_BITS = 32
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1
_PAIR_FLOATS = 1 << 22
_FIRST = 8
_KEPT = 512
_KEPT_CANDIDATES = 2048


def index_label(number: int, version: int) -> int:
    """The label of a cluster's center in the index, never used twice: the version changes with the center."""
    return version << _NUMBER_BITS | number


def version_of(label: int) -> int:
    """The version in an index label."""
    return label >> _NUMBER_BITS


class ClusterSet:
    """All clusters of one snapshot, or of a piece of work.

    Args:
        dim: size of a key.
        table: the clusters that it begins with.
        make_index: gives the index at the first search, where there is a saved one; else it is built.
    """

    def __init__(
        self,
        dim: int,
        neurons: Neurons,
        table: ClusterTable = NO_CLUSTERS,
        make_index: Callable[[ClusterSet], CenterIndex] | None = None,
    ) -> None:
        self.dim = dim
        self.neurons = neurons
        self._table = table
        self._stored = len(table)
        self._made: list[Cluster] = []
        self._rows: NDArray[Any] = np.zeros(len(table), _ROW)
        self._rows["number"] = table.numbers
        self._rows["label"] = table.versions << _NUMBER_BITS | table.numbers
        for column in ("radius", "spread", "reach"):
            self._rows[column] = getattr(table, column)
        self._rows["plain"] = table.plain
        self._used = len(table)
        self._slots: dict[int, int] = dict(zip(table.numbers.tolist(), range(len(table)), strict=True))
        self._slot_by_number: Numbers = np.full(int(table.numbers.max(initial=0)) + 1, -1, np.int64)
        self._slot_by_number[table.numbers] = np.arange(len(table))
        self._owners: dict[int, int] | None = None
        self._widest = {
            name: float(self._rows[name].max(initial=0.0)) for name in ("radius", "spread", "reach")
        }
        self._make_index = make_index or build_index
        self._index: CenterIndex | None = None
        self._clock = itertools.count(1)
        self._asked: dict[bytes, tuple[float, Found]] = {}

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self._slots)

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    @property
    def index(self) -> CenterIndex:
        """The index over the centers."""
        if self._index is None:
            self._index = self._make_index(self)
        return self._index

    def get(self, number: int) -> Cluster:
        """A cluster by its number."""
        return self._cluster(self._slots[number])

    def members(self, number: int) -> tuple[int, ...]:
        """The neurons of a cluster."""
        return self._members(self._slots[number])

    def clusters(self) -> Iterator[Cluster]:
        return (self._cluster(slot) for slot in self._slots.values())

    def holder(self, number: int) -> Cluster:
        return self.get(self.owners[number])

    @property
    def owners(self) -> dict[int, int]:
        """For each live neuron the number of its cluster."""
        if self._owners is None:
            self._owners = {
                member: number
                for number, slot in self._slots.items()
                for member in ((number,) if self._rows["plain"][slot] else self.members(number))
            }
        return self._owners

    def label(self, number: int) -> int:
        """The index label of a cluster, which stands for its content for good."""
        return int(self._rows["label"][self._slots[number]])

    def labels(self) -> Numbers:
        """The index labels of all clusters."""
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        result: Numbers = self._rows["label"][slots]
        return result

    def centers_of(self, labels: Numbers) -> Vector:
        """The centers [n, d] of index labels [n]."""
        return self._centers(self._slot_by_number[labels & _NUMBER_MASK])

    def touching(self, point: Vector, radius: float) -> Near:
        return self._within(point, radius, 0.0, "radius")

    def reaching(self, point: Vector, radius: float, spread: float = 0.0) -> Near:
        return self._within(point, float(with_rounding(radius)), float(with_rounding(spread)), "reach")

    def put(self, cluster: Cluster) -> None:
        self._change([cluster], [], next(self._clock))

    def drop(self, number: int) -> None:
        self._change([], [number], next(self._clock))

    def apply(self, delta: ClusterDelta, version: int) -> None:
        """Take over the changes of a commit; the version is the snapshot's number."""
        self._change(delta.put, delta.dropped, version)

    def candidates(
        self, points: Vector, margins: Floats, hidden: Sequence[int] = (), *, nearest: bool = True
    ) -> Candidates:
        """What may answer points [n, d], each held by a ball up to its margin outside it.

        Args:
            hidden: numbers of clusters to leave out.
            nearest: also those that have the nearest neuron of a point, whether they hold it or not.
        """
        if not self._slots:
            return NO_CANDIDATES
        within = margins + self._widest["radius"]
        sketches = self.index.sketch(points)
        found = self.index.within(sketches, within)
        measure = partial(self._measure, points)
        if not nearest:
            return holding(self._pairs(found, hidden), margins, measure)
        chosen, best = holding_or_nearest(self._pairs(found, hidden), margins, measure)
        lacking = np.nonzero(best + self._widest["spread"] > within)[0]
        if len(lacking) and not found.every:
            more = self.index.nearest(sketches[lacking], _FIRST + len(hidden))
            every = self._pairs(found.and_also(more, lacking), hidden)
            chosen, _ = holding_or_nearest(every, margins, measure)
        return chosen

    def expect(self, points: Vector, radius: float) -> None:
        """Search for many points [n, d] at once; `touching` with a radius up to this one is then quick."""
        points = points[:_KEPT]
        if self._slots and len(points):
            within = max(radius + self._widest["spread"], self._widest["radius"])
            found = self.index.within(self.index.sketch(points), np.full(len(points), within))
            for row, point in enumerate(points):
                self._keep(point, within, found.of(row))

    def _pairs(self, found: Found, hidden: Sequence[int]) -> Pairs:
        """What was found, less the clusters to leave out."""
        slots = self._slot_by_number[found.labels & _NUMBER_MASK]
        pairs = Pairs(found.row, slots, self._rows[slots], found.lower)
        return pairs.of(~np.isin(pairs.clusters["number"], np.asarray(hidden))) if len(hidden) else pairs

    def _within(self, point: Vector, radius: float, spread: float, column: str) -> Near:
        """Clusters whose `column` around the center reaches `spread` around the point, or that have their own
        spread within `radius` of it."""
        if not self._slots:
            return []
        found = self._near(point, max(radius + self._widest["spread"], spread + self._widest[column]))
        slots = self._slot_by_number[found.labels & _NUMBER_MASK]
        limits = np.maximum(self._rows["spread"][slots] + radius, self._rows[column][slots] + spread)
        near = found.lower <= limits
        slots, limits = slots[near], limits[near]
        apart = distances(self._centers(slots), point)
        inside = apart <= limits
        return [
            (self._cluster(slot), far)
            for slot, far in zip(slots[inside].tolist(), apart[inside].tolist(), strict=True)
        ]

    def _near(self, point: Vector, within: float) -> Found:
        """Every cluster whose center may lie within a distance of a point.

        One insertion asks for the same point several times; what was found serves until the clusters change.
        """
        asked, found = self._asked.get(point.tobytes(), (-1.0, None))
        if found is None or not (found.every or within <= asked):
            found = self.index.within(self.index.sketch(point[None]), np.array([within]))
            self._keep(point, within, found)
        return found

    def _keep(self, point: Vector, within: float, found: Found) -> None:
        if len(self._asked) < _KEPT and len(found.labels) <= _KEPT_CANDIDATES:
            self._asked[point.tobytes()] = within, found

    def _measure(self, points: Vector, row: Numbers, slots: Numbers) -> Floats:
        """Exact distances of pairs of a point and a center, a bounded number of floats at a time."""
        result = np.empty(len(row))
        step = max(1, _PAIR_FLOATS // self.dim)
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            centers = self._centers(slots[part])
            result[part] = row_norms(np.subtract(centers, points[row[part]], dtype=np.float64))
        return result

    def _centers(self, slots: Numbers) -> Vector:
        plain, numbers = self._rows["plain"][slots], self._rows["number"][slots]
        if plain.all():
            return self.neurons.keys(numbers)
        centers: Vector = np.empty((len(slots), self.dim), np.float32)
        centers[plain] = self.neurons.keys(numbers[plain])
        for at in np.flatnonzero(~plain).tolist():
            centers[at] = self._cluster(int(slots[at])).center
        return centers

    def _cluster(self, slot: int) -> Cluster:
        return self._table.cluster(slot, self.neurons) if slot < self._stored else self._at(slot)

    def _members(self, slot: int) -> tuple[int, ...]:
        return self._table.members(slot) if slot < self._stored else self._at(slot).members

    def _at(self, slot: int) -> Cluster:
        return self._made[slot - self._stored]

    def _change(self, put: Sequence[Cluster], dropped: Iterable[int], version: int) -> None:
        self._asked.clear()
        old = [*dropped, *(cluster.number for cluster in put if cluster.number in self._slots)]
        slots = np.array([self._slots.pop(number) for number in old], np.int64)
        if self._owners is not None:
            for number, slot in zip(old, slots.tolist(), strict=True):
                for member in self._members(slot):
                    if self._owners.get(member) == number:  # it may have been put into another one since
                        del self._owners[member]
        if self._index is not None and old:
            self._index.remove(self._rows["label"][slots])
        if put:
            self._append(put, version)

    def _append(self, put: Sequence[Cluster], version: int) -> None:
        start, stop = self._used, self._used + len(put)
        self._rows = with_room(self._rows, stop)
        self._slot_by_number = with_room(self._slot_by_number, max(cluster.number for cluster in put) + 1, -1)
        for slot, cluster in enumerate(put, start):
            plain = len(cluster.members) == 1 and cluster.spread == 0.0
            label = index_label(cluster.number, version)
            self._rows[slot] = (cluster.number, label, cluster.radius, cluster.spread, cluster.reach, plain)
            self._slots[cluster.number] = slot
            self._slot_by_number[cluster.number] = slot
            for column in self._widest:
                self._widest[column] = max(self._widest[column], getattr(cluster, column))
            if self._owners is not None:
                self._owners.update(dict.fromkeys(cluster.members, cluster.number))
        self._made.extend(put)
        self._used = stop
        if self._index is not None:
            self._index.add(self._rows["label"][start:stop])


def build_index(clusters: ClusterSet) -> CenterIndex:
    """An index made from nothing but the clusters and their keys."""
    index = CenterIndex(Matrix(clusters.dim), clusters.centers_of)
    index.add(clusters.labels())
    return index
