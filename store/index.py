"""Where centers lie: in one matrix while they are few, in sketches with an HNSW graph from `GRAPH_FROM` on.

A search for every center within a distance misses none, in either form; so which clusters there are, and
which edit answers, does not depend on how large the store is. Only which centers are the nearest of a point
that none is near is left to the graph's recall. Answers are candidates with a lower bound of their distance;
whoever asks measures the few that matter. A label is never used twice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from store.found import MATRIX_ERROR, Floats, Found, Labels, Rows, squared_norms, with_room
from store.graph import Graph
from store.records import Vector
from store.sieve import Sieve
from store.sketch import SAMPLE, Sketch, lower_bounds

GRAPH_FROM = 1000
"""Below this many centers one matrix product (0.3 ms at 1,000 x 1,600) is as quick as sketches."""

_AT_ONCE = 4096
_BETTER = 1.25


class CenterIndex:
    """Centers by label; holds a matrix or sketches, by the rule of `GRAPH_FROM`.

    Args:
        held: what it begins with.
        centers_of: gives the centers [n, d] of labels [n] that were added before.
    """

    def __init__(self, held: Matrix | Sketched, centers_of: Callable[[Labels], Vector]) -> None:
        self._held = held
        self._centers_of = centers_of

    @property
    def sketched(self) -> Sketched | None:
        """The sketches, once there are some."""
        return self._held if isinstance(self._held, Sketched) else None

    def add(self, labels: Labels) -> None:
        """Add labels [n] that were never used before, and whose centers can be asked for."""
        if isinstance(self._held, Matrix) and len(self._held) + len(labels) >= GRAPH_FROM:
            labels = np.concatenate([self._held.labels(), labels])
            self._held = Sketched(Sketch.learn(self._sample(labels)))
        for start in range(0, len(labels), _AT_ONCE):
            some = labels[start : start + _AT_ONCE]
            self._held.add(some, self._centers_of(some))

    def remove(self, labels: Labels) -> None:
        """Forget centers."""
        self._held.remove(labels)

    def settle(self) -> None:
        """Put the sketches and their graph in order, before they are saved.

        The directions of the sketches were learnt when there were few centers. Where those of today are told
        apart much better by others, everything is sketched anew.
        """
        held = self._held
        if isinstance(held, Matrix):
            return
        labels = held.labels()
        sample = self._sample(labels)
        half, other = sample[::2], sample[1::2]
        if Sketch.learn(half).spread(other) > _BETTER * held.sketch.spread(other):
            self._held = held = Sketched(Sketch.learn(sample))
            self.add(labels)
        held.settle()

    def sketch(self, points: Vector) -> Vector:
        """What stands for points [n, d] in a search, float32 [n, m]."""
        return self._held.sketch.of(points) if isinstance(self._held, Sketched) else points

    def within(self, sketches: Vector, within: Floats) -> Found:
        """Every center within a distance [n] of points given by their sketches [n, m], and maybe others."""
        return self._held.within(sketches, within)

    def nearest(self, sketches: Vector, count: int) -> Found:
        """Some of the centers nearest to points given by their sketches, to the recall of the graph."""
        return self._held.nearest(sketches, count)

    def _sample(self, labels: Labels) -> Vector:
        """At most `SAMPLE` of the centers, evenly spread."""
        return self._centers_of(labels[:: max(1, -(-len(labels) // SAMPLE))])


class Matrix:
    """All centers in one float32 matrix, relative to the first one so that rounding takes little."""

    def __init__(self, dim: int) -> None:
        self._origin: Vector | None = None
        self._rows: Vector = np.empty((0, dim), np.float32)
        self._norms: Floats = np.empty(0)
        self._held = Rows()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, labels: Labels, centers: Vector) -> None:
        """Add centers [n, d]."""
        if self._origin is None:
            self._origin = np.array(centers[0])
        new = self._held.append(labels)
        self._rows, self._norms = with_room(self._rows, new.stop), with_room(self._norms, new.stop)
        rows = np.subtract(centers, self._origin, dtype=np.float64).astype(np.float32)
        self._rows[new] = rows
        self._norms[new] = squared_norms(rows)

    def remove(self, labels: Labels) -> None:
        """Forget centers."""
        for row, last in self._held.remove(labels):
            for column in (self._rows, self._norms):
                column[row] = column[last]

    def labels(self) -> Labels:
        return self._held.labels().copy()

    def within(self, points: Vector, within: Floats) -> Found:
        """Every center, for every point."""
        return self.nearest(points, len(self))

    def nearest(self, points: Vector, count: int) -> Found:
        """Every center, for every point."""
        held = len(self)
        row = np.repeat(np.arange(len(points)), held)
        labels = np.tile(self._held.labels(), len(points))
        if self._origin is None:
            return Found(row, labels, np.empty(0), every=True)
        shifted = np.subtract(points, self._origin, dtype=np.float64).astype(np.float32)
        sums = squared_norms(shifted)[:, None] + self._norms[None, :held]
        squared = sums - 2.0 * (shifted @ self._rows[:held].T).astype(np.float64) - MATRIX_ERROR * sums
        return Found(row, labels, np.sqrt(np.maximum(squared, 0.0)).reshape(-1), every=True)


class Sketched:
    """Sketches of all centers in a sieve, and of most of them in a graph.

    The sieve is quick to change, so it is what a commit pays for. The graph takes ten times as long; centers
    that it lacks are searched one by one until `settle` adds them.
    """

    def __init__(self, sketch: Sketch, graph: Graph | None = None) -> None:
        self.sketch = sketch
        self.graph = graph or Graph(sketch.size)
        self._sieve = Sieve(sketch.size)
        shown = self.graph.labels()
        self._sieve.add(shown, self.graph.sketches(shown))
        self._missing: set[int] = set()
        self._missing_rows: Labels | None = None

    def __len__(self) -> int:
        return len(self._sieve)

    def labels(self) -> Labels:
        return self._sieve.labels()

    def add(self, labels: Labels, centers: Vector) -> None:
        """Add centers [n, d]."""
        self._sieve.add(labels, self.sketch.of(centers))
        self._missing.update(labels.tolist())
        self._missing_rows = None

    def remove(self, labels: Labels) -> None:
        """Forget centers."""
        self._sieve.remove(labels)
        self.graph.remove(np.array([label for label in labels.tolist() if label not in self._missing]))
        self._missing.difference_update(labels.tolist())
        self._missing_rows = None

    def settle(self) -> None:
        """Make the graph hold what the sieve does, without too many marks of deletion."""
        labels = np.array(sorted(self._missing), np.int64)
        if len(self.graph.hidden) > max(GRAPH_FROM, len(self.graph)):
            self.graph, labels = Graph(self.sketch.size), self._sieve.labels()
        self.graph.add(labels, self._sieve.sketches(self._sieve.rows(labels)))
        self._missing, self._missing_rows = set(), None

    def holds(self, labels: Labels, centers: Vector) -> bool:
        """Whether these labels [n] and no others are held, with sketches that fit their centers [n, d]."""
        if set(self._sieve.labels().tolist()) != set(labels.tolist()):
            return False
        rows = self._sieve.rows(labels)
        lower = self._sieve.lower(self.sketch.of(centers), np.arange(len(labels)), rows)
        return not lower.any()

    def within(self, sketches: Vector, within: Floats) -> Found:
        """Every center within a distance [n] of points given by their sketches, and maybe others."""
        return self._sieve.within(sketches, within)

    def nearest(self, sketches: Vector, count: int) -> Found:
        """Some of the nearest centers: by the graph, and one by one among those that it lacks."""
        met = self.graph.nearest(sketches, count)
        if met is None:
            return self._sieve.found(sketches, *self._sieve.nearest(sketches, count))
        labels, far = met
        lower = lower_bounds(far, np.sqrt(squared_norms(sketches))[:, None])
        row = np.repeat(np.arange(len(sketches)), count)
        found = Found(row, labels.reshape(-1), lower.reshape(-1))
        if not self._missing:
            return found
        if self._missing_rows is None:
            self._missing_rows = self._sieve.rows(np.array(sorted(self._missing), np.int64))
        more = self._sieve.found(sketches, *self._sieve.nearest(sketches, count, self._missing_rows))
        return found.and_also(more, np.arange(len(sketches)))
