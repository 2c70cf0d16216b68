"""The nearest live neurons of a key, each with the cluster that it stands in."""

from __future__ import annotations

import numpy as np

from melo_store.clusters.cluster_set import ClusterSet
from melo_store.clusters.rules import Cluster, Floats, Numbers
from melo_store.format.segments import Edits
from melo_store.index.neuron_index import NeuronIndex, measured
from melo_store.records import Neighbour, Vector, block_id, edit_id


def neighbours(
    index: NeuronIndex, edits: Edits, clusters: ClusterSet | None, points: Vector, count: int
) -> list[list[Neighbour]]:
    """The `count` nearest of keys float32 [n, d]; see `Project.nearest`."""
    result = index.nearest(points, count)
    homes = _homes(clusters, result.number)
    to_center = _to_center(points, result.row, result.distance, homes)
    rows: list[list[Neighbour]] = [[] for _ in points]
    columns = (result.row, result.number, edits.blocks(result.number), result.distance, to_center)
    for (row, number, block, distance, center), home in zip(
        zip(*(column.tolist() for column in columns), strict=True), homes, strict=True
    ):
        rows[row].append(
            Neighbour(
                edit_id=edit_id(number),
                block=block_id(block) if block else None,
                distance=distance,
                cluster=home.number if home is not None else None,
                radius=home.radius if home is not None else None,
                center_distance=center if home is not None else None,
            )
        )
    return rows


def _homes(clusters: ClusterSet | None, numbers: Numbers) -> list[Cluster | None]:
    """The clusters that neurons [n] stand in."""
    if clusters is None or not clusters.count:
        return [None] * len(numbers)
    owners = clusters.owners
    known = {
        owner: clusters.get(owner) for n in set(numbers.tolist()) if (owner := owners.get(n)) is not None
    }
    return [known[owners[n]] if n in owners else None for n in numbers.tolist()]


def _to_center(points: Vector, row: Numbers, distance: Floats, homes: list[Cluster | None]) -> Floats:
    """How far the centers of the clusters [m] lie from the points; a neuron alone is its own center."""
    result = distance.copy()
    crowded = np.array(
        [at for at, home in enumerate(homes) if home is not None and home.max_member_distance], np.int64
    )
    if len(crowded):
        centers = np.stack([home.center for home in homes if home is not None and home.max_member_distance])
        result[crowded] = measured(points, row[crowded], np.arange(len(crowded)), centers.__getitem__)
    return result
