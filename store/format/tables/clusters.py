"""Clusters files: the clusters that a commit made, changed or removed.

``version`` is the snapshot that wrote the row. Nothing reads it: formats 1 and 2 needed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melo_store.clusters.delta import ClusterDelta, ClusterRows, Ragged
from melo_store.clusters.rules import Cluster
from melo_store.format import codec

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("removed", pa.bool_(), nullable=False),
        pa.field("radius", pa.float64(), nullable=False),
        pa.field("spread", pa.float64(), nullable=False),
        pa.field("reach", pa.float64(), nullable=False),
        pa.field("members", pa.list_(pa.int64()), nullable=False),
        pa.field("label", pa.list_(pa.int64()), nullable=False),
        pa.field("center", pa.large_list(pa.float32()), nullable=False),
    ]
)


def encode(delta: ClusterDelta, version: int) -> Any:
    """A commit's changes of the clusters as a record batch."""
    gone = Cluster((0,), (), np.empty(0, np.float32), 0.0, 0.0, 0.0)
    rows = [*delta.put, *(gone for _ in delta.dropped)]
    own_key = [len(row.members) == 1 and row.max_member_distance == 0.0 for row in rows]
    columns = [
        pa.array([*(row.number for row in delta.put), *delta.dropped], pa.int64()),
        pa.array([version] * len(rows), pa.int64()),
        pa.array([*(False for _ in delta.put), *(True for _ in delta.dropped)], pa.bool_()),
        pa.array([row.radius for row in rows], pa.float64()),
        pa.array([row.max_member_distance for row in rows], pa.float64()),
        pa.array([row.influence_radius for row in rows], pa.float64()),
        pa.array([list(row.members) for row in rows], pa.list_(pa.int64())),
        pa.array([list(row.label) for row in rows], pa.list_(pa.int64())),
        codec.number_rows(
            [row.center[:0] if own else row.center for row, own in zip(rows, own_key, strict=True)]
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def decode(batch: Any, edits: int, dim: int, path: Path) -> ClusterRows:
    """A clusters file as columns.

    Args:
        edits: how many edits there are; no member's number is higher.

    Raises:
        DamagedProjectError: a row contradicts itself.
    """
    with codec.damage(path):
        columns = {
            name: codec.numbers(batch.column(name)) for name in ("number", "radius", "spread", "reach")
        }
        members, labels, centers = (
            codec.ragged(batch.column(name)) for name in ("members", "label", "center")
        )
        removed = np.asarray(batch.column("removed").to_numpy(zero_copy_only=False), np.bool_)
        _check(columns, removed, members, centers, edits, dim)
        return ClusterRows(
            columns["number"],
            removed,
            columns["radius"],
            columns["spread"],
            columns["reach"],
            members,
            labels,
            centers,
        )


def _check(
    columns: Mapping[str, NDArray[Any]],
    removed: NDArray[np.bool_],
    members: Ragged,
    centers: Ragged,
    edits: int,
    dim: int,
) -> None:
    kept = ~removed
    if (members.lengths[kept] < 1).any():
        raise ValueError("a cluster has no members")
    if len(members.values) and (members.values.min() < 0 or members.values.max() > edits):
        raise ValueError("a cluster has a member that does not exist")
    if (members.values[members.starts[kept]] != columns["number"][kept]).any():
        raise ValueError("a cluster's number is not that of its first member")
    if (columns["number"] < 1).any() or (columns["number"] > edits).any():
        raise ValueError("a cluster has the number of an edit that does not exist")
    own_key = (members.lengths == 1) & (columns["spread"] == 0.0)
    if (centers.lengths[kept] != np.where(own_key, 0, dim)[kept]).any():
        raise ValueError("a cluster's center does not have the size of a key")
    for name in ("radius", "spread", "reach"):
        if not (np.isfinite(columns[name]).all() and (columns[name] >= 0).all()):
            raise ValueError(f"a cluster's {name} is not a distance")
    if not np.isfinite(centers.values).all():
        raise ValueError("a cluster's center is not finite")
