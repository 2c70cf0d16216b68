"""What a search of an index gives, and how far its distances can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

MATRIX_ERROR = 2e-5
"""Of a squared distance from a float32 matrix product, per sum of the two squared norms."""


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs of a point and a center, as columns [m]; rows ascend.

    Attributes:
        row: which point.
        labels: which center.
        lower: the center is at least so far from the point (L2).
        every: every pair that there is, is among them.
    """

    row: Labels
    labels: Labels
    lower: Floats
    every: bool = False

    def and_also(self, other: Found, rows: Labels) -> Found:
        """Both; the other's points are those in these rows."""
        if not len(self.row):
            return Found(rows[other.row], other.labels, other.lower)
        row = np.concatenate([self.row, rows[other.row]])
        order = np.argsort(row, kind="stable")
        return Found(
            row[order],
            np.concatenate([self.labels, other.labels])[order],
            np.concatenate([self.lower, other.lower])[order],
        )

    def of(self, row: int) -> Found:
        """What was found for one point."""
        start, stop = np.searchsorted(self.row, [row, row + 1])
        part = slice(start, stop)
        return Found(self.row[part] - row, self.labels[part], self.lower[part], self.every)


def squared_norms(rows: NDArray[np.float32]) -> Floats:
    """Squared L2 norms of rows [n, d]."""
    result: Floats = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return result


def with_room(column: NDArray[Any], rows: int, fill: int = 0) -> NDArray[Any]:
    """The column itself, or a longer copy that holds at least so many rows."""
    if rows <= len(column):
        return column
    longer = np.full((max(rows, 2 * len(column), 64), *column.shape[1:]), fill, column.dtype)
    longer[: len(column)] = column
    return longer
