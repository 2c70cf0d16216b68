"""Nearest centers: exact numpy search while there are few, an HNSW graph from `GRAPH_FROM` centers on.

Answers are candidates with a lower and an upper bound of their distance; whoever asks measures the few that
matter again. A label is never used twice, so that a graph, in which a deletion is only a mark, cannot mix up
an old center with a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import hnswlib
import numpy as np
from numpy.typing import NDArray

from store.records import Vector

GRAPH_FROM = 1000
"""Below this many centers one matrix product (0.3 ms at 1,000 x 1,600) is as quick as a graph, and exact."""

LINKS = 16
BUILD_EF = 200
SEARCH_EF = 96
FIRST_K = 8
WIDEN = 4

_MATRIX_ERROR = 2e-5  # of a squared distance from a float32 matrix product, per sum of the squared norms
_GRAPH_ERROR = 1e-4  # of a distance, from hnswlib's float32 sum of squares
_SCAN_ROWS = 4096

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of each point: labels [n, k], and bounds of the L2 distance to their centers [n, k]."""

    labels: Labels
    lower: Floats
    upper: Floats


class CenterIndex:
    """Centers by label; holds a matrix or a graph, by the rule of `GRAPH_FROM`.

    Args:
        held: what it begins with.
        centers_of: gives the centers [n, d] of labels [n] that were added before.
    """

    def __init__(self, held: Matrix | Graph, centers_of: Callable[[Labels], Vector]) -> None:
        self._held = held
        self._centers_of = centers_of

    @property
    def graph(self) -> Graph | None:
        """The graph, once there is one."""
        return self._held if isinstance(self._held, Graph) else None

    def add(self, labels: Labels, centers: Vector) -> None:
        """Add centers [n, d] under labels [n] that were never used before."""
        if isinstance(self._held, Matrix) and len(self._held) + len(labels) >= GRAPH_FROM:
            before = self._held.labels()
            self._held = Graph(centers.shape[1])
            if len(before):
                self._held.add(before, self._centers_of(before))
        self._held.add(labels, centers)

    def remove(self, labels: Labels) -> None:
        """Forget centers."""
        self._held.remove(labels)

    def near(self, points: Vector, within: Floats, *, at_least: int = FIRST_K) -> Found:
        """Candidates for points [n, d]: every center within a point's distance, and some more.

        Exact for a matrix; to the recall of the graph for a graph.

        Args:
            within: float64 [n].
            at_least: how many centers to give for each point, where there are so many.
        """
        return self._held.near(points, within, at_least)


class Matrix:
    """All centers in one float32 matrix, relative to the first one so that rounding takes little."""

    def __init__(self, dim: int) -> None:
        self._origin: Vector | None = None
        self._rows: Vector = np.empty((0, dim), np.float32)
        self._norms: Floats = np.empty(0)
        self._labels: Labels = np.empty(0, np.int64)
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def add(self, labels: Labels, centers: Vector) -> None:
        if not len(labels):
            return
        if self._origin is None:
            self._origin = np.array(centers[0])
        start, stop = len(self), len(self) + len(labels)
        self._make_room(stop)
        rows = np.subtract(centers, self._origin, dtype=np.float64).astype(np.float32)
        self._rows[start:stop] = rows
        self._norms[start:stop] = _squared_norms(rows)
        self._labels[start:stop] = labels
        self._row_of.update(zip(labels.tolist(), range(start, stop), strict=True))

    def remove(self, labels: Labels) -> None:
        for label in labels.tolist():
            row, last = self._row_of.pop(label), len(self._row_of)
            if row < last:
                for column in (self._rows, self._norms, self._labels):
                    column[row] = column[last]
                self._row_of[int(self._labels[row])] = row

    def labels(self) -> Labels:
        return self._labels[: len(self)].copy()

    def near(self, points: Vector, within: Floats, at_least: int) -> Found:
        """Every center, for every point."""
        count = len(self)
        if self._origin is None:
            return Found(np.empty((len(points), 0), np.int64), *(np.empty((2, len(points), 0))))
        shifted = np.subtract(points, self._origin, dtype=np.float64).astype(np.float32)
        labels = np.broadcast_to(self._labels[:count], (len(points), count))
        return Found(labels, *bounds(self._rows[:count], self._norms[:count], shifted))

    def _make_room(self, rows: int) -> None:
        if rows <= len(self._labels):
            return
        capacity = max(64, rows, 2 * len(self._labels))
        for name in ("_rows", "_norms", "_labels"):
            old = getattr(self, name)
            new = np.empty((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


class Graph:
    """An HNSW graph over centers: capacity grows ahead, deletions are marks, labels are not used twice."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._hidden: set[int] = set()
        self._index = _empty_graph(dim)

    @classmethod
    def load(cls, path: Path, dim: int, hidden: set[int]) -> Graph:
        """Read a graph that `save` wrote; the caller has checked that the file is whole.

        Raises:
            RuntimeError: hnswlib does not take the file.
        """
        graph = cls.__new__(cls)
        graph.dim, graph._hidden = dim, set(hidden)
        graph._index = hnswlib.Index(space="l2", dim=dim)
        graph._index.load_index(str(path))
        return graph

    def save(self, path: Path) -> int:
        """Write the graph; returns the size in bytes that the file must have."""
        self._index.save_index(str(path))
        return int(self._index.index_file_size())

    def __len__(self) -> int:
        return int(self._index.get_current_count()) - len(self._hidden)

    @property
    def hidden(self) -> set[int]:
        """Labels that are marked as deleted."""
        return set(self._hidden)

    def labels(self) -> Labels:
        """The labels in use."""
        every = np.asarray(self._index.get_ids_list(), np.int64)
        return every[~np.isin(every, np.fromiter(self._hidden, np.int64, len(self._hidden)))]

    def centers(self, labels: Labels) -> Vector:
        """The centers of labels in use, float32 [n, d]."""
        found = self._index.get_items(labels, return_type="numpy")
        return np.asarray(found, np.float32).reshape(len(labels), self.dim)

    def add(self, labels: Labels, centers: Vector) -> None:
        if not len(labels):
            return
        needed = int(self._index.get_current_count()) + len(labels)
        if needed > self._index.get_max_elements():
            self._index.resize_index(max(needed, 2 * int(self._index.get_max_elements())))
        self._index.add_items(centers, labels)

    def remove(self, labels: Labels) -> None:
        for label in labels.tolist():
            self._index.mark_deleted(label)
            self._hidden.add(label)
        if len(self._hidden) > max(GRAPH_FROM, len(self)):
            self._rebuild()

    def restore(self, labels: Labels) -> None:
        """Take back the removal of labels."""
        for label in labels.tolist():
            self._index.unmark_deleted(label)
            self._hidden.discard(label)

    def near(self, points: Vector, within: Floats, at_least: int) -> Found:
        count = len(self)
        k = min(count, at_least)
        while 0 < k <= count // WIDEN:
            self._index.set_ef(max(SEARCH_EF, 2 * k))
            try:
                labels, squared = self._index.knn_query(points, k=k)
            except RuntimeError:  # so many marks of deletion around a point that fewer than k were met
                break
            found = np.sqrt(squared.astype(np.float64))
            lower, upper = found * (1 - _GRAPH_ERROR), found * (1 + _GRAPH_ERROR)
            if bool((lower[:, -1] > within).all()):
                return Found(labels.astype(np.int64), lower, upper)
            k *= WIDEN
        return self._scan(points)

    def _scan(self, points: Vector) -> Found:
        """Every center, for every point: as good as a search that would return most of them."""
        labels = self.labels()
        lower = np.empty((len(points), len(labels)))
        upper = np.empty_like(lower)
        origin = points[0]
        shifted = np.subtract(points, origin, dtype=np.float64).astype(np.float32)
        for start in range(0, len(labels), _SCAN_ROWS):
            part = slice(start, start + _SCAN_ROWS)
            centers = self.centers(labels[part])
            rows = np.subtract(centers, origin, dtype=np.float64).astype(np.float32)
            lower[:, part], upper[:, part] = bounds(rows, _squared_norms(rows), shifted)
        return Found(np.broadcast_to(labels, lower.shape), lower, upper)

    def _rebuild(self) -> None:
        """Leave the marks of deletion behind, once they outnumber the living."""
        labels = self.labels()
        centers = self.centers(labels)
        self._hidden = set()
        self._index = _empty_graph(self.dim)
        self.add(labels, centers)


def _empty_graph(dim: int) -> Any:
    graph = hnswlib.Index(space="l2", dim=dim)
    graph.init_index(max_elements=2 * GRAPH_FROM, M=LINKS, ef_construction=BUILD_EF)
    return graph


def bounds(rows: Vector, norms: Floats, points: Vector) -> tuple[Floats, Floats]:
    """Bounds [n, m] of the L2 distances from points [n, d] to rows [m, d], by one matrix product."""
    sums = _squared_norms(points)[:, None] + norms[None]
    squared = sums - 2.0 * (points @ rows.T).astype(np.float64)
    error = _MATRIX_ERROR * sums
    return np.sqrt(np.maximum(squared - error, 0.0)), np.sqrt(np.maximum(squared + error, 0.0))


def _squared_norms(rows: Vector) -> Floats:
    result: Floats = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return result
