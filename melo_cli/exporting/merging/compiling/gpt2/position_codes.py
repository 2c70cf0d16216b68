"""Position codes: points on circles, by which an attention head finds the token before the present one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Random draws of rotation rates; the best draw is taken.
_DRAWS = 200
_SEED = 0


def rotation_rates(count: int, positions: int) -> tuple[Tensor, float]:
    """Rotation rates of the circles, and the least distance between the codes of two positions.

    Args:
        count: number of circles.
        positions: number of positions.

    Returns:
        Angle by which each circle turns with each position, float64 `[count]`; and the least distance:
        `count` minus the sum of the cosines between two codes, which is 0 for a position and itself.
    """
    drawn = torch.Generator().manual_seed(_SEED)
    rates = math.pi * torch.rand(_DRAWS, count, generator=drawn, dtype=torch.float64)
    nearest = count - _cosines(rates, positions).amax(1)
    best = int(nearest.argmax())
    return rates[best], nearest[best].item()


def _cosines(rates: Tensor, positions: int) -> Tensor:
    """The sum of the cosines `[draws, positions - 1]` at each distance but 0."""
    distances = torch.arange(1, max(2, positions), dtype=torch.float64)
    return torch.stack([torch.outer(distances, each).cos().sum(1) for each in rates])


def points(rates: Tensor, positions: int) -> Tensor:
    """A cosine and a sine for each circle at each position, `[positions, 2 * circles]`."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), rates)
    return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1).float()


def rotated_back(rates: Tensor, steps: int) -> Tensor:
    """The matrix that maps the code of each position, as a row, to the code of the position `steps`
    before."""
    turns = [
        torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        for angle in (rates * steps).tolist()
    ]
    matrix: Tensor = torch.block_diag(*turns)
    return matrix
