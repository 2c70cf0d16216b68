"""The live neurons nearest to a key: by one matrix product below `GRAPH_FROM`, by an HNSW graph above it.

An index is made for one set of live neurons and never returns another one; `NeuronIndex.over` makes that for
another set. Below `GRAPH_FROM` its answers are exact. From there on most neurons stand in the graph, which
finds 99 in 100 of the eight nearest, and the newer ones in a matrix beside it. In the matrix stand strays,
too: neurons that a short search of the graph does not meet by their own key, most of them unlike the others.
So a key that a neuron has is always found. Distances are always exact, in float64 from the float32 keys. Of
neurons with equal keys the graph holds one and the matrix the others. A neuron is known by the number of its
edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import hnswlib
import numpy as np

from melo_store.clusters.rules import Floats, Numbers, row_norms
from melo_store.records import Vector

GRAPH_FROM = 4000
"""One product with so many keys of 256 numbers takes 0.3 ms."""

LINKS = 32
BUILD_EF = 200
SEARCH_EF = 384
STRAY_EF = 16
"""Measured on 100,000 edits read by a sentence encoder, 1,000 of which are unlike the others, with 2,283
strays. Other wordings of the thousand have their edit among the eight that a search finds for 0.991 of them,
where exact search has 0.992; at 256, for three quarters of the time, 0.983. Without strays, at 256, it was
0.925, and 39 of the thousand were not found by their own key. Of keys that fill a hundred dimensions and more
evenly, more are missed behind the first."""

_PRODUCT_ERROR = 2e-5  # of a squared distance from a float32 product, per sum of the two squared norms
_GRAPH_ROOM = np.float32(1 + 1e-4)  # for the rounding of hnswlib's squared distances
_CELLS = 1 << 22
_AT_ONCE = 4096

KeysOf: TypeAlias = Callable[[Numbers], Vector]
"""Gives the keys float32 [n, d] of neurons [n]."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Neurons near points, as columns [m]: by point, the nearest first, and of equally near ones the newest.

    Attributes:
        row: which point.
        number: which neuron.
        distance: L2, float64.
    """

    row: Numbers
    number: Numbers
    distance: Floats

    def first(self, count: int) -> SearchResult:
        """The first few of each point, put in order."""
        order = np.lexsort((-self.number, self.distance, self.row))
        row = self.row[order]
        kept = order[np.arange(len(row)) - np.searchsorted(row, row) < count]
        return SearchResult(self.row[kept], self.number[kept], self.distance[kept])

    def and_also(self, other: SearchResult) -> SearchResult:
        """Both, in no order."""
        return SearchResult(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.number, other.number]),
            np.concatenate([self.distance, other.distance]),
        )


_NO_NUMBERS: Numbers = np.empty(0, np.int64)
NO_RESULT = SearchResult(_NO_NUMBERS, _NO_NUMBERS, np.empty(0))


class Matrix:
    """Keys float32 [n, d] of neurons [n], ascending; it never changes."""

    def __init__(self, numbers: Numbers, keys: Vector) -> None:
        self.numbers = numbers
        self.keys = keys
        self._norms = np.einsum("ij,ij->i", keys, keys, dtype=np.float64)

    def nearest(self, points: Vector, count: int) -> SearchResult:
        """The nearest of each point, exactly, and any others that the matrix product cannot rank exactly."""
        if not len(self.numbers):
            return NO_RESULT
        step = max(1, _CELLS // len(self.numbers))
        result = NO_RESULT
        for start in range(0, len(points), step):
            part = points[start : start + step]
            row, at = self._worth_measuring(part, min(count, len(self.numbers)))
            exact = measured(part, row, at, self.keys.__getitem__)
            result = result.and_also(SearchResult(row + start, self.numbers[at], exact))
        return result

    def _worth_measuring(self, points: Vector, count: int) -> tuple[Numbers, Numbers]:
        """Pairs of a point and a row: all that may be among the `count` nearest."""
        norms = np.einsum("ij,ij->i", points, points, dtype=np.float64)[:, None] + self._norms
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is measured
            twice = 2.0 * (points @ self.keys.T)
            highest = (1.0 + _PRODUCT_ERROR) * norms - twice
            limit = np.partition(highest, count - 1, axis=1)[:, count - 1 : count]
            row, at = np.nonzero(~((1.0 - _PRODUCT_ERROR) * norms - twice > limit))
        return row, at


class Graph:
    """An HNSW graph (hnswlib) over keys. Deletions are marks; capacity grows ahead.

    Attributes:
        marked: numbers of neurons that bear the mark of deletion.
        strays: those of them that bear it because searches do not meet them.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.marked = self.strays = _NO_NUMBERS
        self._index: Any = hnswlib.Index(space="l2", dim=dim)
        self._index.init_index(max_elements=_AT_ONCE, M=LINKS, ef_construction=BUILD_EF)

    @classmethod
    def load(cls, path: Path, dim: int, marked: Numbers, strays: Numbers) -> Graph:
        """Read a graph that `save` wrote; the caller has checked that the file is whole.

        Raises:
            RuntimeError: hnswlib does not take the file.
        """
        graph = cls.__new__(cls)
        graph.dim, graph.marked, graph.strays = dim, marked, strays
        graph._index = hnswlib.Index(space="l2", dim=dim)
        graph._index.load_index(str(path))
        return graph

    def save(self, path: Path) -> int:
        """Write the graph; returns the size in bytes that the file must have."""
        self._index.save_index(str(path))
        return int(self._index.index_file_size())

    def numbers(self) -> Numbers:
        """The neurons that are not marked as deleted, ascending."""
        return np.setdiff1d(np.array(self._index.get_ids_list(), np.int64), self.marked)

    def keys(self, numbers: Numbers) -> Vector:
        """The keys that it holds of neurons that are not marked, float32 [n, d]."""
        held = self._index.get_items(numbers, return_type="numpy")
        return np.asarray(held, np.float32).reshape(len(numbers), self.dim)

    def add(self, numbers: Numbers, keys_of: KeysOf) -> None:
        """Take in neurons [n] that it does not hold, or holds under the mark of deletion."""
        again = np.isin(numbers, self.marked)
        for number in numbers[again].tolist():
            self._index.unmark_deleted(number)
        self.marked, self.strays = np.setdiff1d(self.marked, numbers), np.setdiff1d(self.strays, numbers)
        fresh = numbers[~again]
        needed = int(self._index.get_current_count()) + len(fresh)
        if needed > self._index.get_max_elements():
            self._index.resize_index(max(needed, 5 * int(self._index.get_max_elements()) // 4))
        for part in _parts(fresh):
            self._index.add_items(keys_of(part), part)

    def mark(self, numbers: Numbers) -> None:
        """Mark neurons as deleted."""
        for number in numbers.tolist():
            self._index.mark_deleted(number)
        self.marked = np.union1d(self.marked, numbers)

    def set_strays_aside(self) -> None:
        """Mark the neurons that a search at `STRAY_EF` does not meet by their own key.

        Links lead where many keys lie; a neuron may lose the last that leads to it as others join.
        """
        self._index.set_ef(STRAY_EF)
        strays = [part[self._first_met(self.keys(part)) != part] for part in _parts(self.numbers())]
        self.mark(np.concatenate([_NO_NUMBERS, *strays]))
        self.strays = np.concatenate([self.strays, *strays])

    def _first_met(self, points: Vector) -> Numbers:
        """The neuron that is met nearest to each point [n]; -1 where all that is met bears a mark."""
        try:
            numbers, _ = self._index.knn_query(points, k=1)
        except RuntimeError:  # of one point or more
            if len(points) == 1:
                return np.array([-1], np.int64)
            half = len(points) // 2
            return np.concatenate([self._first_met(points[:half]), self._first_met(points[half:])])
        first: Numbers = numbers[:, 0].astype(np.int64)
        return first

    def nearest(self, points: Vector, count: int) -> tuple[Numbers, Vector] | None:
        """For each point `count` neurons near it [n, count], and their squared distances in float32.

        Returns:
            None where it meets fewer than that: marks of deletion are in the way.
        """
        self._index.set_ef(max(SEARCH_EF, count))
        try:
            numbers, squared = self._index.knn_query(points, k=count)
        except RuntimeError:
            return None
        return numbers.astype(np.int64), squared


class NeuronIndex:
    """The live neurons of one state of a project.

    Args:
        dim: size of a key.
        live: their numbers, ascending.
        keys_of: gives their keys.
        graph: may hold some of them, and others.
        matrix: may hold some of them, and others.

    Attributes:
        graph: what holds most of them, where they are many.
    """

    def __init__(
        self,
        dim: int,
        live: Numbers,
        keys_of: KeysOf,
        graph: Graph | None = None,
        matrix: Matrix | None = None,
    ) -> None:
        self.graph = graph
        self._dim = dim
        self._live = live
        self._keys_of = keys_of
        self._matrix = matrix
        self._divide()

    @classmethod
    def of_none(cls, dim: int) -> NeuronIndex:
        """The index before the first neuron."""
        return cls(dim, _NO_NUMBERS, lambda numbers: np.empty((len(numbers), dim), np.float32))

    def over(self, live: Numbers, keys_of: KeysOf) -> NeuronIndex:
        """An index of other live neurons over the same graph; this one is valid until that one is flushed."""
        return NeuronIndex(self._dim, live, keys_of, self.graph, self._matrix)

    def flush(self) -> bool:
        """Put neurons into the graph where so many stand beside it; a graph mostly of marks is made anew.

        Returns:
            Whether the graph took in any.
        """
        if len(self._live) < GRAPH_FROM:
            self.graph = None
        elif self.graph is None or len(self.graph.marked) + len(self._hidden) > len(self._live):
            self.graph = Graph(self._dim)
        else:
            self.graph.mark(self._hidden)
        self._divide()
        if self.graph is None or self._may_join(self.graph, self._rest) < GRAPH_FROM:
            return False
        fresh = self._with_keys_of_their_own(self.graph)
        if len(self.graph.numbers()) and self._may_join(self.graph, fresh) < GRAPH_FROM:
            return False
        self.graph.add(fresh, self._keys_of)
        self.graph.set_strays_aside()
        self._divide()
        return True

    def nearest(self, points: Vector, count: int) -> SearchResult:
        """The `count` nearest of points float32 [n, d], or all where there are no more."""
        result = self._beside().nearest(points, count)
        if self.graph is not None and len(self._held):
            result = result.and_also(self._in_graph(self.graph, points, count))
        return result.first(count)

    def _in_graph(self, graph: Graph, points: Vector, count: int) -> SearchResult:
        """More than are asked for are met, so that those equally near are among them."""
        seen = min(max(count, SEARCH_EF), len(self._held)) + len(self._hidden)
        met = graph.nearest(points, seen)
        if met is None:
            return Matrix(self._held, graph.keys(self._held)).nearest(points, count)
        numbers, squared = met
        hidden = np.isin(numbers, self._hidden)
        squared[hidden] = np.inf
        last = min(count, len(self._held)) - 1
        limit = np.partition(squared, last, axis=1)[:, last : last + 1] * _GRAPH_ROOM
        row, at = np.nonzero((squared <= limit) & ~hidden)
        return SearchResult(row, numbers[row, at], measured(points, row, numbers[row, at], self._keys_of))

    def _may_join(self, graph: Graph, numbers: Numbers) -> int:
        """How many of the neurons that a graph lacks have not been set aside."""
        return len(np.setdiff1d(numbers, graph.strays))

    def _with_keys_of_their_own(self, graph: Graph) -> Numbers:
        """Of the neurons that the graph lacks, one for each key that it lacks too.

        A hundred equal keys in a graph would be linked to none but each other, and hide the rest.
        """
        known = {hash(key.tobytes()) for _, key in _each(graph.numbers(), graph.keys)}
        chosen = []
        for number, key in _each(self._rest, self._keys_of):
            value = hash(key.tobytes())
            if value not in known:
                known.add(value)
                chosen.append(number)
        return np.array(chosen, np.int64)

    def _divide(self) -> None:
        """Work out which of the graph's neurons are live, which are not, and which neurons it lacks."""
        numbers = self.graph.numbers() if self.graph is not None else _NO_NUMBERS
        self._held = np.intersect1d(numbers, self._live, assume_unique=True)
        self._hidden = np.setdiff1d(numbers, self._live, assume_unique=True)
        self._rest = np.setdiff1d(self._live, numbers, assume_unique=True)

    def _beside(self) -> Matrix:
        """The neurons that the graph lacks; rows that an older matrix has are taken over."""
        older, rest = self._matrix, self._rest
        if older is not None and np.array_equal(older.numbers, rest):
            return older
        known = np.isin(rest, older.numbers) if older is not None else np.zeros(len(rest), np.bool_)
        keys: Vector = np.empty((len(rest), self._dim), np.float32)
        keys[~known] = self._keys_of(rest[~known])
        if older is not None:
            keys[known] = older.keys[np.searchsorted(older.numbers, rest[known])]
        self._matrix = Matrix(rest, keys)
        return self._matrix


def measured(points: Vector, row: Numbers, at: Numbers, keys_of: KeysOf) -> Floats:
    """Exact distances [m] of pairs of a point and a key, a bounded number of floats at a time."""
    result = np.empty(len(row))
    step = max(1, _CELLS // points.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        result[part] = row_norms(np.subtract(keys_of(at[part]), points[row[part]], dtype=np.float64))
    return result


def _each(numbers: Numbers, keys_of: KeysOf) -> Iterator[tuple[int, Vector]]:
    """Neurons with their keys, some at a time."""
    for part in _parts(numbers):
        yield from zip(part.tolist(), keys_of(part), strict=True)


def _parts(numbers: Numbers) -> Iterator[Numbers]:
    for start in range(0, len(numbers), _AT_ONCE):
        yield numbers[start : start + _AT_ONCE]
