"""How far the decoder's first token is away, as a point on a curve that bends everywhere.

Two groups of heads attend to all tokens so far, with a bias that falls with the distance, at two rates. What
each gives to the first token are two numbers; over the positions they lie on a strictly convex curve, so one
linear threshold tells one position from all others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

# What the bias falls by with each bucket of distance, in either group.
RATES = (0.15, 0.6)


def buckets(config: object, length: int) -> Tensor:
    """The relative position bucket `[length]` of each distance, in a decoder."""
    found: Tensor = T5Attention._relative_position_bucket(
        -torch.arange(length),
        bidirectional=False,
        num_buckets=config.relative_attention_num_buckets,  # type: ignore[attr-defined]
        max_distance=config.relative_attention_max_distance,  # type: ignore[attr-defined]
    )
    return found


def curve(config: object, length: int) -> Tensor:
    """The two shares `[length, 2]` that the first token gets at each position, float64."""
    weights = (-torch.outer(buckets(config, length).double(), torch.tensor(RATES, dtype=torch.float64))).exp()
    return weights / weights.cumsum(0)


def tangent(points: Tensor, position: int) -> Tensor | None:
    """A direction `[2]` in which the whole curve lies behind the point at `position`; None without one."""
    sides = [points[other] - points[position] for other in (position - 1, position + 1) if other >= 0]
    ahead = -sum(side / side.norm() for side in sides)
    across = [torch.stack([-side[1], side[0]]) / side.norm() for side in sides]
    for direction in (ahead, *across, *(-each for each in across)):
        assert isinstance(direction, Tensor)
        if ((points - points[position]) @ direction <= 1e-12).all():
            return direction
    return None
