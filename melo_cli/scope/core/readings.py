"""Turns token states into word states: those of a text's words at two layers, and one state for the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .words import spans

MOST_WORDS = 96
"""Largest number of words of a text. Of a longer text, the first words (a third) and the last ones are
used."""


@dataclass(frozen=True)
class Reading:
    """The states of some texts.

    Attributes:
        texts: the texts.
        words: the words of each, as written; at most `MOST_WORDS`.
        starts: int64 `[n + 1]`, index of each text's first word among all words.
        low: `[words, d]`, each word's state at the lower layer: the mean over its tokens.
        high: `[words, d]`, the same at the higher layer.
        whole: `[n, d]`, the state at the higher layer that stands for the text.
    """

    texts: list[str]
    words: list[list[str]]
    starts: Tensor
    low: Tensor
    high: Tensor
    whole: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def joined(cls, parts: Sequence[Reading]) -> Reading:
        """Several readings as one."""
        if len(parts) == 1:
            return parts[0]
        counts = torch.cat([part.starts.diff() for part in parts])
        return cls(
            [text for part in parts for text in part.texts],
            [words for part in parts for words in part.words],
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            torch.cat([part.low for part in parts]),
            torch.cat([part.high for part in parts]),
            torch.cat([part.whole for part in parts]),
        )

    def of(self, rows: Sequence[int]) -> Reading:
        """The reading of some of the texts, by their indices; an index may be repeated."""
        chosen = torch.tensor(rows, dtype=torch.long)
        counts = self.starts.diff()[chosen]
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        within = torch.arange(int(starts[-1])) - starts[:-1].repeat_interleave(counts)
        words = self.starts[chosen].repeat_interleave(counts) + within
        return Reading(
            [self.texts[row] for row in rows],
            [self.words[row] for row in rows],
            starts,
            self.low[words],
            self.high[words],
            self.whole[chosen],
        )


def looked_at(text: str) -> list[tuple[int, int]]:
    """The spans, in characters, of the words of a text that are used."""
    every = spans(text)
    if len(every) <= MOST_WORDS:
        return every
    first = MOST_WORDS // 3
    return [*every[:first], *every[first - MOST_WORDS :]]


def read_states(
    texts: Sequence[str],
    offsets: Sequence[Sequence[tuple[int, int]]],
    low: Tensor,
    high: Tensor,
    mask: Tensor,
    pooling: str,
) -> Reading:
    """Compute word states from the token states of a padded batch.

    Args:
        texts: the texts.
        offsets: for each text, the span of each of its tokens in characters; special tokens have empty spans.
        low: `[n, length, d]`, the states at the lower layer.
        high: `[n, length, d]`, the states at the higher layer.
        mask: `[n, length]`, 1 for the tokens that `offsets` lists, in order.
        pooling: `last`, `first` or `mean`: which token's state at the higher layer stands for the text, or
            the mean over all.
    """
    chosen = [looked_at(text) for text in texts]
    counts = torch.tensor([len(words) for words in chosen])
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    length = mask.shape[1]
    first_token = mask.long().argmax(1).tolist()
    sources, targets, representative = [], [], []
    for row, (words, tokens) in enumerate(zip(chosen, offsets, strict=True)):
        begins_ends = np.asarray(tokens, np.int64).reshape(-1, 2)
        own = begins_ends[:, 1] > begins_ends[:, 0]
        begins, ends = np.asarray(words, np.int64).T
        overlap = (begins_ends[:, :1] < ends) & (begins_ends[:, 1:] > begins) & own[:, None]
        token, word = np.nonzero(overlap)
        sources.append(row * length + first_token[row] + token)
        targets.append(int(starts[row]) + word)
        last = np.flatnonzero(own)[-1] if own.any() else len(tokens) - 1
        representative.append(row * length + first_token[row] + int(last))
    source = torch.tensor(np.concatenate(sources), device=low.device)
    target = torch.tensor(np.concatenate(targets), device=low.device)
    total = int(starts[-1])
    share = torch.bincount(target, minlength=total).clamp_min(1).unsqueeze(1)

    def by_word(states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1]).float()
        return (flat.new_zeros(total, flat.shape[1]).index_add_(0, target, flat[source]) / share).cpu()

    return Reading(
        list(texts),
        [[text[begin:end] for begin, end in words] for text, words in zip(texts, chosen, strict=True)],
        starts,
        by_word(low),
        by_word(high),
        _whole(high.float(), mask, pooling, representative).cpu(),
    )


def _whole(states: Tensor, mask: Tensor, pooling: str, last: Sequence[int]) -> Tensor:
    if pooling == "last":
        return states.reshape(-1, states.shape[-1])[torch.tensor(last, device=states.device)]
    if pooling == "first":
        return states[torch.arange(len(states), device=states.device), mask.long().argmax(1)]
    weights = mask.to(states.dtype)
    return torch.bmm(weights.unsqueeze(1), states).squeeze(1) / weights.sum(1, keepdim=True)
