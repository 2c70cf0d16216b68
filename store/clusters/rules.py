"""The rules by which neurons form clusters: Sec. 3 of the paper (arXiv 2312.11795), corrected.

A cluster is a ball around a center with a label. Every ball holds all its members, and none reaches beyond
the nearest key of another label; where balls of two labels overlap, the nearest member decides. (The paper
keeps balls of two labels apart, each at half the distance between them. Measured on zsRE, that leaves out a
third of the rephrases whose nearest edit is the right one.) Where keys of two labels coincide, balls around
them have the radius 0, and both labels keep theirs. `insert` adds one neuron:

- It looks at the nearest center among the clusters that its own ball (key, radius asked for) meets: one of
  the two balls holds a member of the other.
- None: a cluster of its own, with the radius asked for.
- Same label: it joins. The center becomes the mean of the members; the radius their largest distance, or the
  largest radius that a member asked for where that is more, cut at the nearest key of another label. Where
  even the members do not fit, it does not join and gets a cluster of its own.
- Another label, or a join that does not fit: a cluster of its own, as large as it asked for, cut at the
  nearest key of another label.
- Every ball of another label that holds the new key is cut at it. A member that falls outside moves into a
  cluster of its own.

Which clusters there are is a function of the live neurons in the order of their numbers, and of nothing
else. `rebuild` keeps it so when neurons go or come back: `Cluster.influence_radius` covers every ball that
was ever measured for the cluster, so clusters of which neither reach holds a member of the other never
influenced each other, and only those that are connected so are inserted again.

Distances are L2, in float64 from float32 centers and keys, so that a reopened project decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from melo_store.records import Vector

_ROUNDING = 1e-9

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neuron:
    """A neuron that asks for a radius; one that does not stands in no cluster.

    Attributes:
        number: of its edit.
        key: float32 [d].
        radius: the radius asked for.
    """

    number: int
    key: Vector
    label: tuple[int, ...]
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A ball with its members.

    Attributes:
        members: neuron numbers, ascending; the first one is also the cluster's own number.
        center: float32 [d].
        max_member_distance: largest distance from the center to a member; at most `radius`.
        influence_radius: every ball measured in making this cluster lies within this distance of the center.
    """

    members: tuple[int, ...]
    label: tuple[int, ...]
    center: Vector
    radius: float
    max_member_distance: float
    influence_radius: float

    @property
    def number(self) -> int:
        return self.members[0]

    def same_as(self, other: Cluster) -> bool:
        """Equal in every field, bit for bit."""
        mine = (self.members, self.label, self.radius, self.max_member_distance, self.influence_radius)
        theirs = (other.members, other.label, other.radius, other.max_member_distance, other.influence_radius)
        return mine == theirs and np.array_equal(self.center, other.center)


Near: TypeAlias = "list[tuple[Cluster, float]]"


class Neurons(Protocol):
    """Where keys come from."""

    def keys(self, numbers: Sequence[int] | Numbers) -> Vector:
        """Float32 [n, d]."""

    def radii(self, numbers: Sequence[int] | Numbers) -> Floats:
        """Float64 [n], the radii asked for."""

    def neuron(self, number: int) -> Neuron:
        """One neuron."""


class Space(Protocol):
    """A set of clusters that can be searched and changed."""

    @property
    def neurons(self) -> Neurons:
        """Where the members' keys come from."""

    @property
    def count(self) -> int:
        """How many clusters there are."""

    def touching(self, point: Vector, radius: float) -> Near:
        """Every cluster whose ball holds the point, or that may have a member in the ball around the point,
        with its center's distance."""

    def influencing(self, point: Vector, radius: float, max_member_distance: float = 0.0) -> Near:
        """The same with `Cluster.influence_radius` in place of the radius, for a cluster of that size at
        the point."""

    def holder(self, number: int) -> Cluster:
        """The cluster that a live neuron stands in."""

    def put(self, cluster: Cluster) -> None:
        """Add a cluster, or replace the one of that number."""

    def drop(self, number: int) -> None:
        """Remove a cluster."""

    def clusters(self) -> Iterable[Cluster]:
        """All clusters."""


def distances(points: Vector, point: Vector) -> Floats:
    """L2 distance of each row [n, d] to a point [d]; a row's result does not depend on the other rows."""
    return row_norms(np.subtract(points, point, dtype=np.float64))


def row_norms(rows: Floats) -> Floats:
    """L2 norm of each row [n, d], alike for one row and for many."""
    result: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return result


def distance(a: Vector, b: Vector) -> float:
    """L2 distance of two points [d]."""
    return float(distances(a[None], b)[0])


def insert(space: Space, neuron: Neuron) -> None:
    """Add a neuron whose number is higher than that of every neuron in the space."""
    near = [
        candidate
        for candidate in space.touching(neuron.key, neuron.radius)
        if _meets(space, candidate, neuron)
    ]
    influence_radius = neuron.radius
    joined = None
    if near:
        nearest = min(near, key=lambda candidate: (candidate[1], candidate[0].number))[0]
        if nearest.label == neuron.label:
            made, fits = _joined(space, nearest, neuron)
            influence_radius = max(influence_radius, distance(neuron.key, made.center) + made.radius)
            joined = made if fits else None
    space.put(joined if joined is not None else _alone(space, neuron, influence_radius))
    _give_way(space, near, neuron)


def rebuild(space: Space, fresh: Callable[[], Space], gone: Iterable[int], back: Sequence[Neuron]) -> None:
    """Make the space what it would be had the neurons in `gone` never been inserted, and those in `back` had.

    Inserts again, in the order of their numbers, every neuron that they may have influenced.

    Args:
        fresh: makes an empty space over the same neurons.
    """
    removed = set(gone)
    start = [space.holder(number) for number in sorted(removed)]
    for neuron in back:
        start.extend(cluster for cluster, _ in space.influencing(neuron.key, neuron.radius))
    affected: dict[int, Cluster] = {}
    while True:
        _connect(space, affected, start)
        replay = fresh()
        members = {number for cluster in affected.values() for number in cluster.members} - removed
        again = [*back, *(space.neurons.neuron(number) for number in members)]
        for neuron in sorted(again, key=lambda each: each.number):
            insert(replay, neuron)
        made = list(replay.clusters())
        start = [] if len(affected) == space.count else _met(space, made, affected)
        if not start:
            break
    kept = {cluster.number: cluster for cluster in made}
    for number in affected:
        if number not in kept:
            space.drop(number)
    for number, cluster in kept.items():
        if number not in affected or not affected[number].same_as(cluster):
            space.put(cluster)


def _met(space: Space, made: Iterable[Cluster], affected: Mapping[int, Cluster]) -> list[Cluster]:
    """Clusters not yet affected whose influence meets that of a new cluster."""
    near = (other for cluster in made for other, _ in _connected(space, cluster))
    return [other for other in near if other.number not in affected]


def _joined(space: Space, cluster: Cluster, neuron: Neuron) -> tuple[Cluster, bool]:
    """The cluster with the neuron in it, and whether other labels leave room for it; its ball as measured."""
    members = (*cluster.members, neuron.number)
    keys = np.concatenate([space.neurons.keys(cluster.members), neuron.key[None]])
    center: Vector = keys.mean(axis=0, dtype=np.float64).astype(np.float32)
    max_member_distance = float(distances(keys, center).max())
    asked = max(neuron.radius, float(space.neurons.radii(cluster.members).max()))
    radius = max(max_member_distance, asked)
    influence_radius = max(
        distance(center, cluster.center) + cluster.influence_radius,
        distance(center, neuron.key) + neuron.radius,
        radius,
    )
    room = _room(space, center, radius, neuron.label)
    fits = max_member_distance <= room
    return Cluster(
        members,
        neuron.label,
        center,
        min(radius, room) if fits else radius,
        max_member_distance,
        influence_radius,
    ), fits


def _alone(space: Space, neuron: Neuron, influence_radius: float) -> Cluster:
    """A cluster of its own for a neuron."""
    radius = _room(space, neuron.key, neuron.radius, neuron.label)
    return Cluster((neuron.number,), neuron.label, neuron.key, radius, 0.0, influence_radius)


def _room(space: Space, center: Vector, radius: float, label: tuple[int, ...]) -> float:
    """A radius, cut at the nearest key of another label."""
    rivals = (rival for rival in space.touching(center, radius) if rival[0].label != label)
    return min((radius, *(_nearest_member(space, rival, center) for rival in rivals)))


def _give_way(space: Space, near: Near, neuron: Neuron) -> None:
    """Shrink the balls of other labels that hold a new key; members left outside get clusters of their
    own."""
    rivals = [
        (rival, to_center)
        for rival, to_center in near
        if rival.label != neuron.label and rival.radius > to_center
    ]
    losers = [loser for rival, to_center in rivals for loser in _cut(space, rival, to_center)]
    for loser, influence_radius in sorted(losers, key=lambda loser: loser[0].number):
        space.put(_alone(space, loser, influence_radius))


def _meets(space: Space, candidate: tuple[Cluster, float], neuron: Neuron) -> bool:
    """Whether one of two balls holds a member of the other; `candidate` comes from `Space.touching`."""
    cluster, to_center = candidate
    return to_center <= cluster.radius or _nearest_member(space, candidate, neuron.key) <= neuron.radius


def _nearest_member(space: Space, candidate: tuple[Cluster, float], point: Vector) -> float:
    """Distance from a point to the nearest member of a cluster."""
    cluster, to_center = candidate
    return (
        to_center
        if cluster.max_member_distance == 0.0
        else float(distances(space.neurons.keys(cluster.members), point).min())
    )


def _cut(space: Space, cluster: Cluster, limit: float) -> list[tuple[Neuron, float]]:
    """Cut a ball, and give the members farther out than that, each with the influence radius of its own
    ball."""
    if cluster.max_member_distance <= limit:
        space.put(replace(cluster, radius=limit))
        return []
    away = distances(space.neurons.keys(cluster.members), cluster.center)
    out = [number for number, far in zip(cluster.members, away, strict=True) if far > limit]
    kept = tuple(number for number, far in zip(cluster.members, away, strict=True) if far <= limit)
    losers = [space.neurons.neuron(number) for number in out]
    influence_radii = [loser.radius for loser in losers]
    space.drop(cluster.number)
    if kept:
        max_member_distance = float(away[away <= limit].max())
        space.put(replace(cluster, members=kept, radius=limit, max_member_distance=max_member_distance))
    else:  # the cluster's history goes on in one of them, so that `rebuild` still finds it
        influence_radii[0] = max(influence_radii[0], float(away[0]) + cluster.influence_radius)
    return list(zip(losers, influence_radii, strict=True))


def _connect(space: Space, affected: dict[int, Cluster], start: list[Cluster]) -> None:
    """Add to the affected clusters those of the start and all that are connected with them."""
    affected.update((cluster.number, cluster) for cluster in start)
    waiting = list(start)
    while waiting and len(affected) < space.count:
        cluster = waiting.pop()
        for other, _ in _connected(space, cluster):
            if other.number not in affected:
                affected[other.number] = other
                waiting.append(other)


def _connected(space: Space, cluster: Cluster) -> Near:
    """The clusters that a cluster may have influenced, or been influenced by."""
    return space.influencing(cluster.center, cluster.influence_radius, cluster.max_member_distance)


def with_rounding(influence_radius: float) -> float:
    """An influence radius with room for the rounding errors of its sums."""
    return influence_radius * (1.0 + _ROUNDING)
