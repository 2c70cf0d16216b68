"""Few numbers that stand for a key: where it lies along the directions in which keys differ most.

Hidden states fill few of their dimensions. So a sketch of `SIZE` numbers tells most centers apart that a key
of thousands does, at a fraction of the memory and time. And it never claims too much: orthonormal directions
move no two points farther apart, so the distance of two sketches bounds that of the keys from below, whatever
the directions are. They are learnt from a sample of the centers (principal components, by subspace iteration:
Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from store.found import Floats
from store.records import Vector

SIZE = 64
SAMPLE = 1024
"""So many centers are enough to learn from."""

_ROUNDS = 3
_LARGEST = 1e18
_ROUNDING = 1e-4  # of a distance: float32 directions are orthonormal to 1e-6, and hnswlib sums in float32
_CAST = 1e-6  # of the norm of a sketch: what float32 leaves off, with room


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """A map of keys [n, d] to sketches [n, m].

    Attributes:
        origin: float32 [d].
        directions: float64 [d, m] of float32 numbers, orthonormal columns, those along which keys differ most
            first.
    """

    origin: Vector
    directions: Floats

    @classmethod
    def learn(cls, sample: Vector) -> Sketch:
        """The directions in which a sample [n, d] differs most, less rows too large for float32 sums."""
        sample = sample[np.abs(sample).max(axis=1) < _LARGEST]
        origin = (sample.sum(axis=0, dtype=np.float64) / max(1, len(sample))).astype(np.float32)
        rows = np.subtract(sample, origin, dtype=np.float64)
        drawn = np.random.default_rng(0).normal(size=(rows.shape[1], min(SIZE, rows.shape[1])))
        basis = np.linalg.qr(drawn)[0]
        for _ in range(_ROUNDS):
            basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
        along = rows @ basis
        turn = np.linalg.eigh(along.T @ along)[1][:, ::-1]
        return cls(origin, (basis @ turn).astype(np.float32).astype(np.float64))

    @property
    def size(self) -> int:
        """How many numbers a sketch has."""
        return int(self.directions.shape[1])

    def of(self, points: Vector) -> Vector:
        """The sketches float32 [n, m] of points [n, d]."""
        rows = np.subtract(points, self.origin, dtype=np.float64)
        sketches: Vector = (rows @ self.directions).astype(np.float32)
        return sketches

    def spread(self, points: Vector) -> float:
        """How much of their variance the sketches of points [n, d] keep, summed over the directions."""
        return float(self.of(points).var(axis=0, dtype=np.float64).sum()) if len(points) else 0.0

    def text(self) -> str:
        """Origin and directions, little-endian float32, in base64."""
        numbers = np.concatenate([self.origin[None], self.directions.T])
        return base64.b64encode(numbers.astype("<f4").tobytes()).decode()

    @classmethod
    def from_text(cls, text: str, dim: int) -> Sketch:
        """What `text` wrote of a sketch of keys of this size.

        Raises:
            ValueError: it was not.
        """
        numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
        rows = numbers.reshape(-1, dim)
        if len(rows) != 1 + min(SIZE, dim) or not np.isfinite(rows).all():
            raise ValueError(f"this is no sketch of keys of {dim} numbers")
        return cls(rows[0], np.ascontiguousarray(rows[1:].T, np.float64))


def lower_bounds(far: Floats, norms: Floats) -> Floats:
    """What distances of keys are at least, from those of their sketches and the norms of one side's sketches.

    The norms of the other side are no larger than both together.
    """
    result: Floats = np.maximum(far * (1.0 - _ROUNDING - _CAST) - (2.0 * _CAST) * norms, 0.0)
    return result
