"""Position codes of the decoder: a point on a strictly convex curve for each position.

Two groups of heads attend to all tokens so far, with a bias that falls with the distance, at two rates. The
two coordinates of a point are the attention that each group gives to the first token. Since the curve is
strictly convex, one linear threshold separates one position from all others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

# Decrease of the bias with each bucket of distance, for the two groups.
RATES = (0.15, 0.6)


def buckets(config: object, length: int) -> Tensor:
    """The relative position bucket `[length]` of each distance, in a decoder."""
    numbers: Tensor = T5Attention._relative_position_bucket(
        -torch.arange(length),
        bidirectional=False,
        num_buckets=config.relative_attention_num_buckets,  # type: ignore[attr-defined]
        max_distance=config.relative_attention_max_distance,  # type: ignore[attr-defined]
    )
    return numbers


def curve(config: object, length: int) -> Tensor:
    """The attention `[length, 2]` that either group gives to the first token at each position, float64."""
    weights = (-torch.outer(buckets(config, length).double(), torch.tensor(RATES, dtype=torch.float64))).exp()
    return weights / weights.cumsum(0)


def tangent(points: Tensor, position: int) -> Tensor | None:
    """A direction `[2]` in which no point of the curve lies beyond that of `position`; None if there is
    none."""
    sides = [points[other] - points[position] for other in (position - 1, position + 1) if other >= 0]
    ahead = -sum(side / side.norm() for side in sides)
    across = [torch.stack([-side[1], side[0]]) / side.norm() for side in sides]
    for direction in (ahead, *across, *(-each for each in across)):
        assert isinstance(direction, Tensor)
        if ((points - points[position]) @ direction <= 1e-12).all():
            return direction
    return None
