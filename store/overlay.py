"""A layer of changes over a set of clusters that stays: what a writer stages in. Dropping it undoes all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from store import clusters
from store.candidates import Candidates
from store.clusters import Cluster, Floats, Near, Neuron, Neurons
from store.deltas import ClusterDelta
from store.records import Vector
from store.space import ClusterSet


class Overlay:
    """Changes over a set of clusters that itself stays as it is."""

    def __init__(self, base: ClusterSet, neurons: Neurons) -> None:
        self.dim = base.dim
        self.neurons = neurons
        self._base = base
        self._top = ClusterSet(base.dim, neurons)
        self._hidden: set[int] = set()

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return self._base.count - len(self._hidden) + self._top.count

    def touching(self, point: Vector, radius: float) -> Near:
        return self._seen(self._base.touching(point, radius)) + self._top.touching(point, radius)

    def reaching(self, point: Vector, radius: float, spread: float = 0.0) -> Near:
        below = self._seen(self._base.reaching(point, radius, spread))
        return below + self._top.reaching(point, radius, spread)

    def holder(self, number: int) -> Cluster:
        if number in self._top.owners:
            return self._top.holder(number)
        return self._base.holder(number)

    def is_live(self, number: int) -> bool:
        """Whether a neuron stands in a cluster."""
        if number in self._top.owners:
            return True
        owner = self._base.owners.get(number)
        return owner is not None and owner not in self._hidden

    def members(self, number: int) -> tuple[int, ...]:
        return self._top.members(number) if number in self._top else self._base.members(number)

    def clusters(self) -> Iterator[Cluster]:
        below = (cluster for cluster in self._base.clusters() if cluster.number not in self._hidden)
        return itertools.chain(below, self._top.clusters())

    def put(self, cluster: Cluster) -> None:
        self._hide(cluster.number)
        self._top.put(cluster)

    def drop(self, number: int) -> None:
        self._hide(number)
        if number in self._top:
            self._top.drop(number)

    def candidates(self, points: Vector, margins: Floats, *, nearest: bool = True) -> Candidates:
        """What may answer points [n, d]; see `ClusterSet.candidates`."""
        below = self._base.candidates(points, margins, sorted(self._hidden), nearest=nearest)
        return below.and_also(self._top.candidates(points, margins, nearest=nearest))

    def delta(self) -> ClusterDelta:
        """What has changed."""
        put = [
            cluster
            for cluster in self._top.clusters()
            if cluster.number not in self._base or not self._base.get(cluster.number).same_as(cluster)
        ]
        put.sort(key=lambda cluster: cluster.number)
        return ClusterDelta(put, sorted(number for number in self._hidden if number not in self._top))

    def _hide(self, number: int) -> None:
        if number in self._base:
            self._hidden.add(number)

    def _seen(self, near: Near) -> Near:
        return [found for found in near if found[0].number not in self._hidden]


def changed(
    space: ClusterSet, neurons: Neurons, gone: Iterable[int], back: Sequence[Neuron], new: Iterable[Neuron]
) -> Overlay:
    """The clusters without the neurons in `gone`, with those in `back` in their old places, and new ones."""
    overlay = Overlay(space, neurons)
    removed = set(gone)
    if removed or back:
        clusters.rebuild(overlay, lambda: ClusterSet(space.dim, neurons), removed, back)
    for neuron in new:
        clusters.insert(overlay, neuron)
    return overlay
