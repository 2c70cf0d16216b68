"""Output directions: what to add to a model's last state so that it writes a given token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

_STEPS = 100
# Least lead of a token's logit over all others, as a share of the logit.
_LEAD = 0.1


def directions(words: Tensor, bias: Tensor, tokens: Sequence[int]) -> Tensor:
    """For each token a unit vector in whose direction its logit is the largest.

    A token's own row of the output layer is enough, unless a longer row lies near it. Then the direction
    turns away from that row until the token wins.

    Args:
        words: rows of the output layer `[vocabulary, d]`, scaled by the weight of the last norm.
        bias: added to each logit, `[vocabulary]`.
        tokens: token ids.

    Returns:
        `[tokens, d]`.
    """
    own = normalize(words[list(tokens)], dim=1)
    rows = [_direction(words, bias, token, row) for token, row in zip(tokens, own, strict=True)]
    return torch.stack(rows) if rows else own


def _direction(words: Tensor, bias: Tensor, token: int, row: Tensor) -> Tensor:
    for _ in range(_STEPS):
        logits = words @ row + bias
        wanted = logits[token].item()
        logits[token] = -torch.inf
        other = int(logits.argmax())
        if wanted - logits[other] > _LEAD * abs(wanted):
            break
        row = normalize(row + 0.2 * normalize(words[token] - words[other], dim=0), dim=0)
    return row
