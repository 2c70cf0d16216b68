"""GRACE's codebook: keys with their values and radii (arXiv 2211.11031, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from melo_cli.scope.core.rules import NO_ROUTE, Candidate, Route

# Keys that are compared with all others at a time.
ROWS = 256
# Below half the way between two keys of different labels, as the published code splits them.
_GAP = 1e-5


@dataclass
class Codebook:
    """Keys with their values and radii; it answers look-ups as the store does.

    Attributes:
        initial: the first epsilon of a key.
        keys: `[n, in]` float32.
        values: `[n, out]` float32.
        epsilons: `[n]`, how far each key reaches (L2).
        labels: target tokens of the edit that each key was made for.
        edit_ids: id of that edit.
    """

    initial: float = 1.0
    keys: list[NDArray[np.float32]] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    epsilons: list[float] = field(default_factory=list)
    labels: list[tuple[int, ...]] = field(default_factory=list)
    edit_ids: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(key.nbytes for key in self.keys) + sum(value.nbytes for value in self.values)

    def insert(self, key: NDArray[np.float32], label: tuple[int, ...], edit_id: str, value: Tensor) -> int:
        """Find or make the entry of a new edit (Algorithm 1): add, expand or split.

        Args:
            key: `[in]` float32.
            label: token ids of the target.
            edit_id: the edit.
            value: `[out]`, the value of a new entry; an expanded entry keeps its own.

        Returns:
            The number of the entry.
        """
        if not self.keys:
            return self._add(key, label, edit_id, value, self.initial)
        distances = np.linalg.norm(np.stack(self.keys) - key, axis=1)
        nearest = int(distances.argmin())
        distance = float(distances[nearest])
        if distance > self.initial + self.epsilons[nearest]:
            return self._add(key, label, edit_id, value, self.initial)
        if label == self.labels[nearest]:
            self.epsilons[nearest] = max(self.epsilons[nearest], distance)
            return nearest
        self.epsilons[nearest] = distance / 2 - _GAP
        return self._add(key, label, edit_id, value, distance / 2)

    def lookup(self, keys: NDArray[np.float32]) -> list[Route]:
        """Routes of keys: the nearest entry, fired where the key lies within its epsilon.

        Args:
            keys: `[n, in]` float32.

        Returns:
            One route for each key.
        """
        if not self.keys:
            return [NO_ROUTE] * len(keys)
        entries = np.stack(self.keys)
        parts = (keys[start : start + ROWS] for start in range(0, len(keys), ROWS))
        return [self._route(row) for part in parts for row in pairwise_distances(part, entries)]

    def _route(self, distances: NDArray[np.float64]) -> Route:
        entry = int(distances.argmin())
        distance, epsilon = float(distances[entry]), self.epsilons[entry]
        near = Candidate(
            self.edit_ids[entry],
            str(entry),
            distance,
            holds=distance <= epsilon,
            cluster=entry,
            radius=epsilon,
            center_distance=distance,
        )
        return Route(near if near.holds else None, near)

    def _add(
        self, key: NDArray[np.float32], label: tuple[int, ...], edit_id: str, value: Tensor, epsilon: float
    ) -> int:
        self.keys.append(key)
        self.values.append(value)
        self.epsilons.append(epsilon)
        self.labels.append(label)
        self.edit_ids.append(edit_id)
        return len(self.keys) - 1


def pairwise_distances(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """L2 distances `[n, m]` between `points` `[n, d]` and `others` `[m, d]`, by one product."""
    ours, theirs = points.astype(np.float64), others.astype(np.float64)
    squared = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * ours @ theirs.T
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return distances
