"""Learns how pooled hidden states become keys: whitening, or token weights and a projection by contrast."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from melo_cli.calibration.prompts import Pair
from melo_cli.calibration.states import Pooled, TokenStates
from melo_cli.keys import KeyTransform, pool

_TEMPERATURE = 0.05
_LEARNING_RATE = 3e-3
_PAIRS = 128
_UNRELATED = 64
_OTHER_QUESTIONS = 3
"""How much more often another question about the subject is held against a prompt than another subject:
subjects are told apart more easily."""
_TOKENS = 16384
"""Tokens in one step, padding counted, at most: long prompts come in smaller batches."""


@dataclass(frozen=True)
class Lesson:
    """What a key is learned from: places of prompts."""

    pairs: Sequence[Pair]
    unrelated: Sequence[int]

    def places(self) -> set[int]:
        """Every prompt in it."""
        negatives = (place for pair in self.pairs for place, _ in (*pair.other_subject, *pair.other_question))
        asked = (place for pair in self.pairs for place in (pair.prompt, pair.rephrase))
        return {*asked, *negatives, *self.unrelated}


def whitening(states: TokenStates, lesson: Lesson, *, pooling: str, size: int) -> KeyTransform:
    """Directions in which prompts differ, each scaled to the same variance (PCA whitening)."""
    places = list(dict.fromkeys([pair.prompt for pair in lesson.pairs] + list(lesson.unrelated)))
    pooled = pooled_states(states, places, pooling)
    center = pooled.mean(0)
    directions = normalize(pooled - center, dim=-1)
    _, spread, basis = torch.linalg.svd(directions, full_matrices=False)
    kept = min(size, max(len(places) // 2, 1), len(spread))
    scale = len(places) ** 0.5 / spread[:kept].clamp(min=1e-6 * float(spread[0]))
    return KeyTransform(pooling, unit=True, center=center, projection=basis[:kept].T * scale)


def contrastive(
    states: TokenStates, lesson: Lesson, *, pooling: str, size: int, steps: int, seed: int
) -> KeyTransform:
    """Token weights (for `learned` pooling) and a linear projection that bring rephrases to their prompts.

    InfoNCE (arXiv 1807.03748) over unit-length keys: each prompt has to tell its rephrase from the batch's
    other prompts and rephrases, from the same question about other subjects, from other questions about its
    subject, and from unrelated prompts. Prompts of one group are never held against each other.

    Returns:
        A transform whose keys have `min(size, d)` numbers; the same for the same arguments.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = random.Random(seed)
    kept = min(size, states.dim)
    first = torch.randn(states.dim, kept, generator=generator) / states.dim**0.5
    device = states.batch([lesson.pairs[0].prompt])[0].device
    projection = first.to(device).requires_grad_()
    weights = torch.zeros(states.dim, device=device, requires_grad=True)
    learned = [projection, weights] if pooling == "learned" else [projection]
    optimizer = torch.optim.Adam(learned, lr=_LEARNING_RATE)
    transform = KeyTransform(
        pooling, unit=True, token_weights=weights if pooling == "learned" else None, projection=projection
    )
    rows = _rows(states, lesson)
    if pooling != "learned":
        places = sorted(lesson.places())
        states = Pooled(pooled_states(states, places, pooling), places)
    for _ in range(steps):
        batch = [lesson.pairs[drawn.randrange(len(lesson.pairs))] for _ in range(min(rows, _PAIRS))]
        loss = _loss(states, transform, batch, lesson.unrelated, drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    token_weights = weights.detach() if pooling == "learned" else None
    return KeyTransform(pooling, unit=True, token_weights=token_weights, projection=projection.detach())


@torch.no_grad()
def pooled_states(states: TokenStates, places: Sequence[int], pooling: str) -> Tensor:
    """Pooled states `[n, d]` of prompts by place."""
    parts = (states.batch(places[start : start + 64]) for start in range(0, len(places), 64))
    return torch.cat([pool(hidden, mask, pooling) for hidden, mask in parts])


def _rows(states: TokenStates, lesson: Lesson) -> int:
    some = [pair.prompt for pair in lesson.pairs[:_PAIRS]]
    length = states.batch(some)[1].shape[1]
    return max(_TOKENS // (4 * length), 8)


def _loss(
    states: TokenStates,
    transform: KeyTransform,
    batch: Sequence[Pair],
    unrelated: Sequence[int],
    drawn: random.Random,
) -> Tensor:
    negatives = [(*drawn.choice(found), row) for row, pair in enumerate(batch) if (found := _negatives(pair))]
    others = drawn.sample(unrelated, min(_UNRELATED, len(unrelated), len(batch)))
    places = [pair.prompt for pair in batch] + [pair.rephrase for pair in batch]
    hidden, mask = states.batch([*places, *(place for place, _, _ in negatives), *others])
    keys = transform(hidden, mask)
    count = len(batch)
    prompts, rephrases, rest = keys[:count], keys[count : 2 * count], keys[2 * count :]
    scores = torch.cat([prompts @ rephrases.T, prompts @ prompts.T, prompts @ rest.T], dim=1) / _TEMPERATURE
    excused = _excused(batch, negatives, len(others)).to(scores.device)
    return cross_entropy(scores.masked_fill(excused, -torch.inf), torch.arange(count, device=scores.device))


def _negatives(pair: Pair) -> tuple[tuple[int, str], ...]:
    return (*pair.other_subject, *_OTHER_QUESTIONS * pair.other_question)


def _excused(batch: Sequence[Pair], negatives: Sequence[tuple[int, str, int]], others: int) -> Tensor:
    """Which prompts a prompt is not held against, its group's: `[n, 2n + negatives + others]`."""
    numbers = {group: at for at, group in enumerate({pair.group for pair in batch})}
    groups = torch.tensor([numbers[pair.group] for pair in batch])
    theirs = torch.tensor([numbers.get(group, -1) for _, group, _ in negatives], dtype=torch.long)
    owners = torch.tensor([row for _, _, row in negatives], dtype=torch.long)
    same = groups.unsqueeze(1) == groups
    own = owners == torch.arange(len(batch)).unsqueeze(1)  # a pair's own negatives are negatives whatever
    made = (groups.unsqueeze(1) == theirs) & ~own
    away = same & ~torch.eye(len(batch), dtype=torch.bool)
    return torch.cat([away, same, made, torch.zeros((len(batch), others), dtype=torch.bool)], dim=1)
