"""An HNSW graph (hnswlib) over sketches: some of the centers nearest to a point, in time that hardly grows.

Capacity grows ahead, deletions are marks, and a label is not used twice, so that the graph cannot mix up an
old center with a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from store.found import Floats, Labels
from store.records import Vector

LINKS = 16
BUILD_EF = 100
SEARCH_EF = 64

_CAPACITY = 2048


class Graph:
    """Sketches float32 [m] by label."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._hidden: set[int] = set()
        self._index: Any = hnswlib.Index(space="l2", dim=size)
        self._index.init_index(max_elements=_CAPACITY, M=LINKS, ef_construction=BUILD_EF)

    @classmethod
    def load(cls, path: Path, size: int, hidden: set[int]) -> Graph:
        """Read a graph that `save` wrote; the caller has checked that the file is whole.

        Raises:
            RuntimeError: hnswlib does not take the file.
        """
        graph = cls.__new__(cls)
        graph.size, graph._hidden = size, set(hidden)
        graph._index = hnswlib.Index(space="l2", dim=size)
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

    def sketches(self, labels: Labels) -> Vector:
        """The sketches of labels in use, float32 [n, m]."""
        found = self._index.get_items(labels, return_type="numpy")
        return np.asarray(found, np.float32).reshape(len(labels), self.size)

    def add(self, labels: Labels, sketches: Vector) -> None:
        """Add sketches [n, m] under labels [n] that were never used before."""
        if not len(labels):
            return
        needed = int(self._index.get_current_count()) + len(labels)
        if needed > self._index.get_max_elements():
            self._index.resize_index(max(needed, 2 * int(self._index.get_max_elements())))
        self._index.add_items(sketches, labels)

    def remove(self, labels: Labels) -> None:
        """Mark labels as deleted."""
        for label in labels.tolist():
            self._index.mark_deleted(label)
            self._hidden.add(label)

    def restore(self, labels: Labels) -> None:
        """Take back the removal of labels."""
        for label in labels.tolist():
            self._index.unmark_deleted(label)
            self._hidden.discard(label)

    def nearest(self, points: Vector, count: int) -> tuple[Labels, Floats] | None:
        """Labels [n, count] of sketches near points [n, m], and their distances (L2, summed in float32).

        Returns:
            None where fewer than `count` were met: there are no more, or marks of deletion are in the way.
        """
        if count > len(self):
            return None
        self._index.set_ef(max(SEARCH_EF, 2 * count))
        try:
            labels, squared = self._index.knn_query(points, k=count)
        except RuntimeError:
            return None
        return labels.astype(np.int64), np.sqrt(squared.astype(np.float64))
