"""What a search of an index gives, and how far its distances can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
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


class Rows:
    """Which row of its owner's arrays each label has; rows are used without gaps."""

    def __init__(self) -> None:
        self._labels: Labels = np.empty(0, np.int64)
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def labels(self) -> Labels:
        """The labels, in the order of their rows; a view."""
        return self._labels[: len(self)]

    def of(self, labels: Labels) -> Labels:
        """The rows of labels [n]."""
        return np.array([self._row_of[label] for label in labels.tolist()], np.int64)

    def append(self, labels: Labels) -> slice:
        """Give new labels the next rows."""
        start, stop = len(self), len(self) + len(labels)
        self._labels = with_room(self._labels, stop)
        self._labels[start:stop] = labels
        self._row_of.update(zip(labels.tolist(), range(start, stop), strict=True))
        return slice(start, stop)

    def remove(self, labels: Labels) -> Iterator[tuple[int, int]]:
        """Forget labels; gives each row that has to take over what another row holds, and that one."""
        for label in labels.tolist():
            row, last = self._row_of.pop(label), len(self._row_of)
            if row < last:
                self._labels[row] = self._labels[last]
                self._row_of[int(self._labels[row])] = row
                yield row, last


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
