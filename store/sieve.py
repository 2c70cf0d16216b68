"""Every center within a distance of a point, found for certain: by sketches, first a few of their numbers.

An HNSW graph misses some: measured on 100,000 points that fill 64 dimensions evenly, one neighbour in ten
(M 16, ef 96), and one in 500 at four times the price. One matrix product with the first `COARSE` numbers of
every sketch costs 0.1 ms there and leaves one center in 1,000 for a look at its whole sketch. Where it leaves
more than one in `_MANY`, as with large radii, a product with whole sketches follows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from store.found import MATRIX_ERROR, Floats, Found, Labels, Rows, squared_norms, with_room
from store.records import Vector
from store.sketch import lower_bounds

COARSE = 11  # with their norm a multiple of four, which matrix products take at a time

_CELLS = 1 << 20
_PAIRS = 1 << 16
_MANY = 64
_LESS = 1.0 - MATRIX_ERROR
_FARTHEST = 1e18  # its square is a float32


class Sieve:
    """The sketches of centers by label.

    Args:
        size: how many numbers a sketch has.
    """

    def __init__(self, size: int) -> None:
        few = min(COARSE, size)
        self._few = few
        self._coarse: Vector = np.empty((few + 1, 0), np.float32)  # and as the last row `_half` of the few
        self._sketches: Vector = np.empty((0, size), np.float32)
        self._half: Vector = np.empty(0, np.float32)  # of the squared norms, negative, less `MATRIX_ERROR`
        self._held = Rows()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, labels: Labels, sketches: Vector) -> None:
        """Add sketches [n, m] under labels [n]."""
        new = self._held.append(labels)
        self._make_room(new.stop)
        coarse = sketches[:, : self._few]
        self._coarse[:-1, new] = coarse.T
        self._coarse[-1, new] = -squared_norms(coarse) * _LESS / 2
        self._sketches[new] = sketches
        self._half[new] = -squared_norms(sketches) * _LESS / 2

    def remove(self, labels: Labels) -> None:
        """Forget centers."""
        for row, last in self._held.remove(labels):
            self._coarse[:, row] = self._coarse[:, last]
            for column in (self._sketches, self._half):
                column[row] = column[last]

    def labels(self) -> Labels:
        return self._held.labels().copy()

    def rows(self, labels: Labels) -> Labels:
        """Where the sketches of labels stand, until the next change."""
        return self._held.of(labels)

    def sketches(self, rows: Labels) -> Vector:
        """Sketches float32 [n, m]."""
        found: Vector = self._sketches[rows]
        return found

    def within(self, points: Vector, within: Floats) -> Found:
        """Every center within a distance [n] of points, given by their sketches [n, m]; some others too."""
        asked = np.ones((len(points), self._few + 1), np.float32)
        few = asked[:, :-1] = points[:, : self._few]
        at_most = len(points) * len(self) // _MANY
        found = self._passing(_limits(few, within), lambda part: asked @ self._coarse[:, part], at_most)
        if found is None:
            limits = _limits(points, within)
            found = self._passing(limits, lambda part: points @ self._sketches[part].T + self._half[part])
        assert found is not None, "nothing limits their number"
        row, at = found
        if not len(row):
            return Found(row, row, np.empty(0))
        lower = self.lower(points, row, at)
        near = lower <= within[row]
        return Found(row[near], self._held.labels()[at[near]], lower[near])

    def _passing(
        self, limits: Vector, score: Callable[[slice], Vector], at_most: float = np.inf
    ) -> tuple[Labels, Labels] | None:
        """Pairs of a point and a row of the sieve whose score reaches the point's limit [n]; points ascend.

        Returns:
            None where there are more than `at_most`.
        """
        step = max(1, _CELLS // max(1, len(limits)))
        passed, count = [], 0
        for start in range(0, max(1, len(self)), step):
            stop = min(start + step, len(self))
            hits = np.flatnonzero(score(slice(start, stop)) >= limits[:, None])
            count += len(hits)
            if count > at_most:
                return None
            row, at = np.divmod(hits, max(1, stop - start))
            passed.append((row, at + start))
        if len(passed) == 1:
            return passed[0]
        row, at = (np.concatenate(each) for each in zip(*passed, strict=True))
        order = np.argsort(row, kind="stable")
        return row[order], at[order]

    def nearest(self, points: Vector, count: int, rows: Labels | None = None) -> tuple[Labels, Labels]:
        """The centers with the nearest sketches, to float32: which point, and in which row of the sieve.

        Args:
            rows: look among these only.
        """
        sketches, half = self._sketches[: len(self)], self._half[: len(self)]
        if rows is not None:
            sketches, half = sketches[rows], half[rows]
        count = min(count, len(half))
        found = np.empty((len(points), count), np.int64)
        for at, point in enumerate(points):
            found[at] = np.argpartition(-half - sketches @ point, count - 1)[:count] if count else ()
        return np.repeat(np.arange(len(points)), count), (found if rows is None else rows[found]).reshape(-1)

    def lower(self, points: Vector, row: Labels, at: Labels) -> Floats:
        """Lower bounds of the distances of pairs of a point and a row of the sieve."""
        result, norms = np.empty(len(row)), np.sqrt(squared_norms(points))
        for start in range(0, len(row), _PAIRS):
            part = slice(start, start + _PAIRS)
            some, which = at[part], row[part]
            apart = np.subtract(self._sketches[some], points[which], dtype=np.float64)
            far = np.sqrt(np.einsum("ij,ij->i", apart, apart))
            result[part] = lower_bounds(far, norms[which])
        return result

    def found(self, points: Vector, row: Labels, at: Labels) -> Found:
        """Pairs of a point and a row of the sieve with what their distance is at least."""
        return Found(row, self._held.labels()[at], self.lower(points, row, at))

    def _make_room(self, rows: int) -> None:
        if rows > len(self._half):
            self._coarse = with_room(self._coarse.T, rows).T.copy()
            self._sketches = with_room(self._sketches, rows)
            self._half = with_room(self._half, rows)


def _limits(points: Vector, within: Floats) -> Vector:
    """What a.b - |b|^2 / 2 is at least, float32 [n], where b lies within a distance [n] of points a [n, m].

    That is |a - b|^2 <= w^2 solved for b; what a float32 sum may lose is granted to both norms.
    """
    least = (squared_norms(points) * _LESS - np.square(np.minimum(within, _FARTHEST))) / 2
    limits: Vector = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
    return limits
