"""Matrices of a block in int8, each rank component with a step of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from melo_store.records import Vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

Levels: TypeAlias = "NDArray[np.int8]"
Side: TypeAlias = Literal["A", "B"]

RANK_AXIS: dict[Side, int] = {"A": 0, "B": 1}
"""The axis of each side that counts the rank: `A [rank, in]`, `B [out, rank]`. The other shares a step."""

_LARGEST = 127
_STEP_BITS = 12
"""Significant bits of a step. A level has seven, so that their product is exact in float32, and quantizing it
again gives the same levels and the same step."""
_SMALLEST = np.finfo(np.float32).tiny
"""Smaller steps, which float32 does not keep to all bits, are 0."""


def quantized(matrix: Vector, side: Side) -> tuple[Levels, Vector]:
    """The levels and steps that stand for a matrix: `levels * step` is within half a step of it.

    Args:
        matrix: one side of a slice, float32. If it is not finite, the steps are not.
        side: which.

    Returns:
        Levels int8 in the shape of the matrix, from -127 to 127, and steps float32 `[rank]`.
    """
    axis = 1 - RANK_AXIS[side]
    largest = np.abs(matrix).max(axis=axis, initial=0.0)
    steps = _rounded_up((largest / np.float32(_LARGEST)).astype(np.float32))
    divisors = np.expand_dims(np.where(steps > 0, steps, np.float32(1)), axis)
    with np.errstate(invalid="ignore"):
        return np.rint(matrix / divisors).astype(np.int8), steps


def dequantized(levels: Levels, steps: Vector, side: Side) -> Vector:
    """The float32 matrix that levels and steps stand for; see `quantized`."""
    matrix: Vector = levels.astype(np.float32) * np.expand_dims(steps, 1 - RANK_AXIS[side])
    return matrix


def rounded(matrix: Vector, side: Side) -> Vector:
    """A matrix as int8 keeps it; rounding it again changes nothing."""
    return dequantized(*quantized(matrix, side), side)


def _rounded_up(steps: Vector) -> Vector:
    """The next numbers with `_STEP_BITS` significant bits that are no smaller."""
    fractions, exponents = np.frexp(steps)
    unit = np.float32(1 << _STEP_BITS)
    up: Vector = np.ldexp(np.ceil(fractions * unit) / unit, exponents)
    return np.where(up < _SMALLEST, np.float32(0), up)
