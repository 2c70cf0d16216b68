"""A set of clusters to search and to change; a search is one matrix-vector product over the centers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melo_store.clusters import rules
from melo_store.clusters.delta import NO_CHANGE, NO_CLUSTERS, ClusterDelta, ClusterTable
from melo_store.clusters.rules import Cluster, Near, Neuron, Neurons, distances, row_norms, with_rounding
from melo_store.records import Vector

_PRODUCT_ERROR = 2e-5  # of a squared distance from a float32 product, per sum of the two squared norms
_SIZES = np.dtype([("norm", "f8"), ("radius", "f8"), ("spread", "f8"), ("reach", "f8")])


class ClusterSet:
    """All clusters of one snapshot, or of a piece of work.

    Args:
        dim: size of a key.
        table: the clusters that it begins with; each is decoded when it is asked for.
    """

    def __init__(self, dim: int, neurons: Neurons, table: ClusterTable = NO_CLUSTERS) -> None:
        self.dim = dim
        self.neurons = neurons
        self._table = table
        self._clusters: dict[int, Cluster | int] = dict(
            zip(table.numbers.tolist(), range(len(table)), strict=True)
        )
        self._owners: dict[int, int] | None = None
        self._balls: _Balls | None = None

    def copy(self, neurons: Neurons) -> ClusterSet:
        """A set that changes on its own; what `Cluster` objects there are, both hold."""
        twin = ClusterSet(self.dim, neurons, self._table)
        twin._clusters = dict(self._clusters)
        twin._owners = dict(self.owners)
        twin._balls = self.balls.copy()
        return twin

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self._clusters)

    def __contains__(self, number: int) -> bool:
        return number in self._clusters

    def get(self, number: int) -> Cluster:
        """A cluster by its number."""
        entry = self._clusters[number]
        return entry if isinstance(entry, Cluster) else self._table.cluster(entry, self.neurons)

    def clusters(self) -> Iterator[Cluster]:
        """All clusters."""
        return (self.get(number) for number in self._clusters)

    @property
    def owners(self) -> dict[int, int]:
        """For each neuron that stands in a cluster, the cluster's number."""
        if self._owners is None:
            self._owners = {
                member: number
                for number, entry in self._clusters.items()
                for member in (entry.members if isinstance(entry, Cluster) else self._table.members(entry))
            }
        return self._owners

    @property
    def balls(self) -> _Balls:
        """What a search goes over."""
        if self._balls is None:
            self._balls = _Balls(self.dim)
            for cluster in self.clusters():
                self._balls.put(cluster)
        return self._balls

    def holder(self, number: int) -> Cluster:
        """The cluster that a neuron stands in."""
        return self.get(self.owners[number])

    def touching(self, point: Vector, radius: float) -> Near:
        near = self.balls.within(point, radius, 0.0, "radius")
        return [(self.get(number), to_center) for number, to_center in near]

    def influencing(self, point: Vector, radius: float, max_member_distance: float = 0.0) -> Near:
        near = self.balls.within(point, with_rounding(radius), with_rounding(max_member_distance), "reach")
        return [(self.get(number), to_center) for number, to_center in near]

    def put(self, cluster: Cluster) -> None:
        self._forget_members(cluster.number)
        self.owners.update(dict.fromkeys(cluster.members, cluster.number))
        self._clusters[cluster.number] = cluster
        self.balls.put(cluster)

    def drop(self, number: int) -> None:
        self._forget_members(number)
        if self._clusters.pop(number, None) is not None:
            self.balls.drop(number)

    def since(self, before: ClusterSet) -> ClusterDelta:
        """What turns another set into this one."""
        if self is before:
            return NO_CHANGE
        put = [self.get(number) for number in sorted(self._clusters) if not self._is_in(before, number)]
        return ClusterDelta(put, sorted(number for number in before._clusters if number not in self))

    def _is_in(self, other: ClusterSet, number: int) -> bool:
        """Whether another set has this cluster, the same in every field."""
        theirs = other._clusters.get(number)
        if theirs is None:
            return False
        kept = self._table is other._table and theirs == self._clusters[number]
        return kept or other.get(number).same_as(self.get(number))

    def _forget_members(self, number: int) -> None:
        for member in self.get(number).members if number in self else ():
            if self.owners[member] == number:  # it may have been put into another one since
                del self.owners[member]


class _Balls:
    """Centers and sizes of clusters in arrays, one row each; a row is used again."""

    def __init__(self, dim: int) -> None:
        self._rows: dict[int, int] = {}
        self._numbers: list[int] = []
        self._centers: Vector = np.empty((0, dim), np.float32)
        self._sizes: NDArray[Any] = np.empty(0, _SIZES)

    def copy(self) -> _Balls:
        twin = _Balls(self._centers.shape[1])
        twin._rows, twin._numbers = dict(self._rows), list(self._numbers)
        twin._centers, twin._sizes = self._centers.copy(), self._sizes.copy()
        return twin

    def put(self, cluster: Cluster) -> None:
        row = self._rows.setdefault(cluster.number, len(self._numbers))
        if row == len(self._numbers):
            self._numbers.append(cluster.number)
        if row == len(self._sizes):
            room = max(64, row // 4)
            self._centers = np.concatenate(
                [self._centers, np.empty_like(self._centers, shape=(room, self._centers.shape[1]))]
            )
            self._sizes = np.concatenate([self._sizes, np.empty(room, _SIZES)])
        self._centers[row] = cluster.center
        norm = float(row_norms(cluster.center[None].astype(np.float64))[0])
        self._sizes[row] = norm * norm, cluster.radius, cluster.max_member_distance, cluster.influence_radius

    def drop(self, number: int) -> None:
        row, last = self._rows.pop(number), self._numbers.pop()
        if last != number:
            self._rows[last], self._numbers[row] = row, last
            end = len(self._numbers)
            self._centers[row], self._sizes[row] = self._centers[end], self._sizes[end]

    def within(
        self, point: Vector, radius: float, max_member_distance: float, column: str
    ) -> list[tuple[int, float]]:
        """Clusters whose `column` around the center reaches `max_member_distance` around the point, or that
        have their own spread within `radius` of it: number, and distance of the center."""
        centers, sizes = self._centers[: len(self._numbers)], self._sizes[: len(self._numbers)]
        limits = np.maximum(sizes["spread"] + radius, sizes[column] + max_member_distance)
        norms = sizes["norm"] + float(row_norms(point[None].astype(np.float64))[0]) ** 2
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is measured
            least = (1.0 - _PRODUCT_ERROR) * norms - 2.0 * (centers @ point)
            rows = np.flatnonzero(~(least > limits * limits))
        to_center = distances(centers[rows], point)
        inside = to_center <= limits[rows]
        return [
            (self._numbers[row], far)
            for row, far in zip(rows[inside].tolist(), to_center[inside].tolist(), strict=True)
        ]


def changed(
    before: ClusterSet, neurons: Neurons, gone: Iterable[int], back: Sequence[Neuron], new: Sequence[Neuron]
) -> ClusterSet:
    """The clusters without the neurons in `gone`, with those in `back` as if they had never gone, and new
    ones.

    The set itself stays as it is; where nothing changes it is also the result.

    Args:
        gone: those that stand in no cluster do not matter.
    """
    removed = before.owners.keys() & set(gone)
    if not (removed or back or new):
        return before
    after = before.copy(neurons)
    if removed or back:
        rules.rebuild(after, lambda: ClusterSet(before.dim, neurons), removed, back)
    for neuron in new:
        rules.insert(after, neuron)
    return after


def all_put(clusters: ClusterSet | None) -> ClusterDelta:
    """All clusters of a set, as what they add to none."""
    return NO_CHANGE if clusters is None else clusters.since(ClusterSet(clusters.dim, clusters.neurons))
