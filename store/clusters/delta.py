"""What a commit changes about the clusters, and how a chain of such changes reads as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melo_store.clusters.rules import Cluster, Floats, Neurons, Numbers
from melo_store.records import Vector


@dataclass(frozen=True, slots=True)
class ClusterDelta:
    """Clusters made or changed, and numbers of clusters that are no more; both ascending."""

    put: Sequence[Cluster]
    dropped: Sequence[int]

    def __bool__(self) -> bool:
        return bool(self.put or self.dropped)


NO_CHANGE = ClusterDelta((), ())


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of different lengths in one flat array; row i is ``values[starts[i]:starts[i] + lengths[i]]``."""

    values: NDArray[np.int64] | Vector
    starts: Numbers
    lengths: Numbers

    def row(self, at: int) -> NDArray[np.int64] | Vector:
        return self.values[self.starts[at] : self.starts[at] + self.lengths[at]]


@dataclass(frozen=True, slots=True, eq=False)
class ClusterRows:
    """The rows of one clusters file, as columns.

    Attributes:
        removed: the row says that the cluster is no more.
        centers: float32; a row of length 0 means that the center is the key of the only member.
    """

    numbers: Numbers
    removed: NDArray[np.bool_]
    radius: Floats
    max_member_distance: Floats
    influence_radius: Floats
    members: Ragged
    labels: Ragged
    centers: Ragged


class ClusterTable:
    """The clusters that a chain of deltas leaves, in the order of their numbers; decoded one by one."""

    def __init__(self, parts: Sequence[ClusterRows]) -> None:
        self._parts = parts
        every = _joined([part.numbers for part in parts], np.int64)
        removed = _joined([part.removed for part in parts], np.bool_)
        last = len(every) - 1 - np.unique(every[::-1], return_index=True)[1]
        last = last[~removed[last]]
        offsets = np.cumsum([0, *(len(part.numbers) for part in parts)])
        self._part = np.searchsorted(offsets, last, side="right") - 1
        self._row = last - offsets[self._part]
        self.numbers: Numbers = every[last]
        self.radius: Floats = _joined([part.radius for part in parts], np.float64)[last]
        self.max_member_distance: Floats = _joined([part.max_member_distance for part in parts], np.float64)[
            last
        ]
        self.influence_radius: Floats = _joined([part.influence_radius for part in parts], np.float64)[last]

    def __len__(self) -> int:
        return len(self.numbers)

    def members(self, at: int) -> tuple[int, ...]:
        """The neurons of the cluster in this row."""
        part = self._parts[self._part[at]]
        return tuple(part.members.row(int(self._row[at])).tolist())

    def cluster(self, at: int, neurons: Neurons) -> Cluster:
        """The cluster in this row."""
        part, row = self._parts[self._part[at]], int(self._row[at])
        members = tuple(part.members.row(row).tolist())
        center = part.centers.row(row).astype(np.float32, copy=False)
        return Cluster(
            members,
            tuple(part.labels.row(row).tolist()),
            center if len(center) else neurons.keys(members)[0],
            float(self.radius[at]),
            float(self.max_member_distance[at]),
            float(self.influence_radius[at]),
        )


def _joined(columns: Sequence[NDArray[np.generic]], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.concatenate(columns) if columns else np.empty(0, dtype)


NO_CLUSTERS = ClusterTable([])
