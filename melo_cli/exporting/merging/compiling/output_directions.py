"""What is written into a model's last state so that it says a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

_STEPS = 100
# By how much, of its own logit, a word leads at least.
_LEAD = 0.1


def directions(words: Tensor, beside: Tensor, spoken: Sequence[int]) -> Tensor:
    """For each token of `spoken` a direction `[tokens, d]` of length 1 in which it wins over all others.

    A word's own row of the output layer will do, unless longer rows lie near it: then it turns away from
    the one that wins, until it does not.

    Args:
        words: rows of the output layer `[vocabulary, d]`, as the last norm's output meets them.
        beside: what is added to each logit, `[vocabulary]`.
    """
    own = normalize(words[list(spoken)], dim=1)
    found = [_direction(words, beside, token, row) for token, row in zip(spoken, own, strict=True)]
    return torch.stack(found) if found else own


def _direction(words: Tensor, beside: Tensor, token: int, row: Tensor) -> Tensor:
    for _ in range(_STEPS):
        logits = words @ row + beside
        wanted = logits[token].item()
        logits[token] = -torch.inf
        other = int(logits.argmax())
        if wanted - logits[other] > _LEAD * abs(wanted):
            break
        row = normalize(row + 0.2 * normalize(words[token] - words[other], dim=0), dim=0)
    return row
