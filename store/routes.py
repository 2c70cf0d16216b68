"""Which neuron answers for a key."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from store.candidates import Candidates
from store.clusters import Floats, Numbers, row_norms, tolerances
from store.records import Neighbour, Route, Vector, block_id, edit_id
from store.segments import Edits

_CELLS = 1 << 22


class Searchable(Protocol):
    """Clusters that can be asked for the candidates of many points at once."""

    @property
    def count(self) -> int: ...

    def candidates(self, points: Vector, margins: Floats, *, nearest: bool) -> Candidates: ...

    def members(self, number: int) -> tuple[int, ...]: ...


def lookup(clusters: Searchable, edits: Edits, points: Vector, *, nearest: bool = True) -> list[Route]:
    """The routes of keys float32 [n, d]; `Route.nearest` only where it is asked for.

    Of the clusters whose ball holds the key (`clusters.TOLERANCE`), the nearest member decides; of members
    equally near, the newest; that is exact. The nearest neuron of a key that none holds is exact too while
    the index is a matrix, and else the nearest that the HNSW graph finds.
    """
    if not clusters.count:
        return [Route(None, None)] * len(points)
    step = max(1, _CELLS // max(clusters.count, points.shape[1]))
    parts = (points[start : start + step] for start in range(0, len(points), step))
    return [route for part in parts for route in _routes(clusters, edits, part, nearest)]


def _routes(clusters: Searchable, edits: Edits, points: Vector, with_nearest: bool) -> list[Route]:
    margins = tolerances(points)
    found = clusters.candidates(points, margins, nearest=with_nearest)
    if not len(found.row):
        return [Route(None, None)] * len(points)
    pair, number, apart = _members(clusters, edits, points, found)
    holds = (found.center_distance <= found.radius + margins[found.row])[pair]
    row = found.row[pair]
    order = np.lexsort((-number, apart, row))
    nearest = _first_of_each(row, order) if with_nearest else {}
    held = _first_of_each(row, order[holds[order]])

    def neighbour(at: int) -> Neighbour:
        cluster, block = pair[at], int(edits.blocks([int(number[at])])[0])
        return Neighbour(
            edit_id=edit_id(int(number[at])),
            block=block_id(block) if block else None,
            cluster=int(found.number[cluster]),
            distance=float(apart[at]),
            radius=float(found.radius[cluster]),
            center_distance=float(found.center_distance[cluster]),
        )

    def route(at: int) -> Route:
        near = neighbour(nearest[at]) if at in nearest else None
        if held.get(at) == nearest.get(at):
            return Route(near, near)
        return Route(neighbour(held[at]) if at in held else None, near)

    return [route(at) for at in range(len(points))]


def _members(
    clusters: Searchable, edits: Edits, points: Vector, found: Candidates
) -> tuple[Numbers, Numbers, Floats]:
    """The members of candidates: which candidate, which neuron, its distance to the candidate's point."""
    crowded = {*found.number[~found.plain].tolist()}
    if not crowded:
        return np.arange(len(found.row)), found.number, found.center_distance
    plain = np.flatnonzero(found.plain)
    pairs, numbers, apart = [plain], [found.number[plain]], [found.center_distance[plain]]
    step = max(1, _CELLS // points.shape[1])
    for cluster in sorted(crowded):
        members = np.array(clusters.members(cluster), np.int64)
        at = np.flatnonzero(found.number == cluster)
        for start in range(0, len(members), step):
            some = members[start : start + step]
            keys = edits.keys(some)
            for candidate in at.tolist():
                pairs.append(np.full(len(some), candidate))
                numbers.append(some)
                apart.append(row_norms(np.subtract(keys, points[found.row[candidate]], dtype=np.float64)))
    return np.concatenate(pairs), np.concatenate(numbers), np.concatenate(apart)


def _first_of_each(row: Numbers, order: Numbers) -> dict[int, int]:
    """For each row the first place that the order gives it."""
    backwards = order[::-1]
    return dict(zip(row[backwards].tolist(), backwards.tolist(), strict=True))
