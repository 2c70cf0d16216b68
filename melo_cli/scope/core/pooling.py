"""Keys under the scope rule `radius`: hidden states at the key layer, pooled over a prompt's tokens (Sec. 3.2
of arXiv 2312.11795)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class KeyTransform:
    """Turns the hidden states of a prompt's tokens into its key.

    The optional parts are those of projects of older versions; new projects only pool.

    Attributes:
        pooling: `last` (the last prompt token), `first`, `mean` (over real tokens), or `learned`.
        unit: scale the pooled state, and the projected one, to length 1.
        token_weights: `[d]`, for `learned`: a token's score is its state times this, and the pooled state the
            mean under the softmax of the scores over the prompt.
        center: `[d]`, taken from the pooled state first of all.
        projection: `[d, k]`, applied last.
    """

    pooling: str
    unit: bool = False
    token_weights: Tensor | None = None
    center: Tensor | None = None
    projection: Tensor | None = None

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> KeyTransform:
        """The transform that a project or an export holds."""
        parts = {name: arrays.get(name) for name in ("token_weights", "center", "projection")}
        return cls(str(settings["pooling"]), bool(settings["unit"]), **parts)

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Keys `[batch, k]` float32 of hidden states `[batch, length, d]`, `mask` `[batch, length]` marking
        the real tokens."""
        key = _pooled(hidden.float(), mask, self.pooling, self.token_weights)
        if self.center is not None:
            key = key - self.center.to(key.device)
        if self.unit:
            key = normalize(key, dim=-1)
        if self.projection is not None:
            key = key @ self.projection.to(key.device)
            key = normalize(key, dim=-1) if self.unit else key
        return key


def _pooled(hidden: Tensor, mask: Tensor, pooling: str, token_weights: Tensor | None) -> Tensor:
    if pooling == "learned":
        if token_weights is None:
            raise ValueError("pooling 'learned' needs token weights, but there are none")
        scores = (hidden @ token_weights.to(hidden.device)).masked_fill(mask == 0, -torch.inf)
        return _weighted(hidden, scores.softmax(-1))
    if pooling == "mean":
        weights = mask.to(hidden.dtype)
        return _weighted(hidden, weights) / weights.sum(1, keepdim=True)
    positions = torch.arange(mask.shape[1], device=mask.device)
    real = mask.bool()
    if pooling == "last":
        index = positions.masked_fill(~real, -1).amax(1)
    else:
        index = positions.masked_fill(~real, mask.shape[1]).amin(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """The sum over tokens of states `[batch, length, d]` times weights `[batch, length]`, as one product."""
    return torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)
