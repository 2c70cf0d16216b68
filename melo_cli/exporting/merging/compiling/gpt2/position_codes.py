"""Points on circles that tell each position from all others, so that a head finds the one before."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Draws of turning rates, of which the best is taken.
_DRAWS = 200
_SEED = 0


def turning_rates(count: int, positions: int) -> tuple[Tensor, float]:
    """Rates `[count]` by which the circles turn with each position, and how far apart two positions are at
    least: `count` minus the sum of the cosines between them, which is 0 for a position and itself."""
    drawn = torch.Generator().manual_seed(_SEED)
    rates = math.pi * torch.rand(_DRAWS, count, generator=drawn, dtype=torch.float64)
    nearest = count - _cosines(rates, positions).amax(1)
    best = int(nearest.argmax())
    return rates[best], nearest[best].item()


def _cosines(rates: Tensor, positions: int) -> Tensor:
    """The sum of the cosines `[draws, positions - 1]` at each distance but 0."""
    distances = torch.arange(1, max(2, positions), dtype=torch.float64)
    found = [torch.outer(distances, each).cos().sum(1) for each in rates]
    return torch.stack(found)


def points(rates: Tensor, positions: int) -> Tensor:
    """A cosine and a sine for each circle at each position, `[positions, 2 * circles]`."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), rates)
    return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1).float()


def turned_back(rates: Tensor, steps: int) -> Tensor:
    """A matrix that takes each position's points, as a row, to those of the position so many before."""
    turns = [
        torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        for angle in (rates * steps).tolist()
    ]
    matrix: Tensor = torch.block_diag(*turns)
    return matrix
