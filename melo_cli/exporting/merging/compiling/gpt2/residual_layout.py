"""What the added dimensions hold at each token of a text, and what a neuron looks for in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detectors import Detectors
from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerPosition, AnswerTokens
from melo_cli.exporting.merging.compiling.gpt2.layout import BEFORE, EARLY, GPT2Layout
from melo_cli.exporting.merging.compiling.gpt2.pooling import Pooling
from melo_cli.exporting.merging.compiling.gpt2.position_codes import points, turning_rates
from melo_cli.exporting.merging.compiling.neurons import CODE, token_codes

# What a wrong token, or another position where that counts, takes from a score: more than any prompt has.
_MISMATCH = 15.0
# By how much another wording is shorter than an edit's prompt, at most.
_SHORTER = 1.5
# Contexts of which one takes less than this from the other's score count as one.
_NEAR = 2.0


class ResidualLayout:
    """The added columns of the larger model's states, all of the scale 1.

    Attributes:
        codes: of tokens, `[vocabulary, CODE]`.
        rates, gap: of the points that stand for positions, see `turning_rates`.
        positions: what stands with each position: its points, how late it is, one over the tokens so far.
    """

    def __init__(self, plain: PreTrainedModel, layout: GPT2Layout, detectors: Detectors) -> None:
        config: Any = plain.config
        self.layout, self.detectors = layout, detectors
        self.codes = token_codes(config.vocab_size)
        self.rates, self.gap = turning_rates(layout.circles, layout.positions)
        self._pooling = Pooling(plain)
        self._points = points(self.rates, layout.positions)
        count = torch.arange(1, layout.positions + 1).float()[:, None]
        late = (count > torch.tensor(layout.early)).float()
        self.positions = torch.cat([self._points, late, _inverse(count)], 1)

    def columns(self, ids: Sequence[int]) -> Tensor:
        """What stands at each token of a text, `[tokens, added columns]`."""
        layout = self.layout
        count = torch.arange(1, len(ids) + 1)[:, None]
        early, late = self._features(ids).cumsum(0).split(layout.features, 1)
        codes = torch.cat([self.codes[list(ids)], torch.ones(len(ids), 1)], 1)
        # The first tokens have none before them, and what stands there is nobody's code.
        before = [
            codes.roll(steps, 0).index_fill(0, torch.arange(min(steps, len(ids))), 0)
            for steps in range(BEFORE + 1)
        ]
        return torch.cat(
            [early / count, late / count.clamp(max=EARLY), *before, self.positions[: len(ids)]], 1
        )

    def neurons(
        self, answer_tokens: AnswerTokens, edit: int, narrow: Collection[AnswerPosition] = ()
    ) -> Tensor:
        """Inputs `[positions, added columns]` of one edit's neurons: its score of the prompt, after the
        tokens that stand before the place, and much less after others.

        Args:
            narrow: places whose neurons are for the edit's own prompt alone, and know their position.
        """
        length = len(answer_tokens.edit.prompt_ids)
        rows = self._scores(answer_tokens, edit)
        confused = self._confused(answer_tokens.positions)
        for row, place, doubtful in zip(rows, answer_tokens.positions, confused, strict=True):
            self._recognise(row, place.before)
            if place in narrow or doubtful:
                self._stand_at(row, length + place.after - 1)
            # As late as any wording's answer is: the mean of few tokens may be anything.
            late = [
                which
                for which, early in enumerate(self.layout.early)
                if place.after >= early or length > _SHORTER * early
            ]
            if late:
                self._stand_late(row, late[-1])
        return rows

    def _features(self, ids: Sequence[int]) -> Tensor:
        """What each token adds to the sums of features, `[tokens, 2 * features]`."""
        read = self._pooling.read(ids)
        found = torch.cat([read, read], 1) @ self.detectors.projection + self.detectors.offset
        found[EARLY:, self.layout.features :] = 0
        return found

    def _scores(self, answer_tokens: AnswerTokens, edit: int) -> Tensor:
        """The score that the prompt had, from the means over prompt and beginning of the answer.

        With `n` tokens so far, of which `j` are the answer's, the sum of features over the prompt is `n`
        times the mean less the sum over those `j`: linear in the mean and `1 / n`. So the score of any prompt
        keeps its sign; but for the second mean, and for `1 / n` of few tokens, the edit's own length is
        assumed.
        """
        features, length = self.layout.features, len(answer_tokens.edit.prompt_ids)
        weight, bias = self.detectors.weight[edit], self.detectors.bias[edit]
        one, inverse = self._at("one"), self._at("inverse")
        rows = torch.zeros(len(answer_tokens.positions), self.layout.still - self.layout.width)
        so_far = self._answer_scores(answer_tokens, weight)
        for row, place in zip(rows, answer_tokens.positions, strict=True):
            count, j = length + place.after, place.after
            early = min(count, EARLY) / min(length, EARLY)
            row[:features] = weight[:features]
            row[features : 2 * features] = length / count * early * weight[features:]
            added = so_far[j, 0] + j * bias
            row[inverse] = -added
            row[one] = bias + added * (_inverse(torch.tensor(float(count))) - 1 / count)
            row[one] -= length / count * so_far[j, 1] / min(length, EARLY)
        return rows

    def _answer_scores(self, answer_tokens: AnswerTokens, weight: Tensor) -> Tensor:
        """What the first tokens of an answer add to both sums of features, in the score `[tokens, 2]`."""
        prompt, answer = answer_tokens.edit.prompt_ids, answer_tokens.edit.target_ids
        added = self._features((*prompt, *answer[:-1]))[len(prompt) :] * weight
        sums = added.unflatten(1, (2, -1)).sum(2).cumsum(0)
        return torch.cat([sums.new_zeros(1, 2), sums])

    def _recognise(self, row: Tensor, before: Sequence[int]) -> None:
        """Take from the score where the last tokens are others: a code's product with itself is 1."""
        columns = [self.layout.code, *(self.layout.before(steps) for steps in range(1, BEFORE + 1))]
        for token, column in zip(reversed(before), columns, strict=False):
            at = column - self.layout.width
            row[at : at + CODE] += _MISMATCH * self.codes[token]
            row[at + CODE] -= _MISMATCH

    def _stand_at(self, row: Tensor, position: int) -> None:
        """Take from the score at every other position."""
        at, strength = self._at("position"), _MISMATCH / self.gap
        row[at : at + self._points.shape[1]] = strength * self._points[position]
        row[self._at("one")] -= strength * self.layout.circles

    def _stand_late(self, row: Tensor, which: int) -> None:
        """Take from the score among the first positions."""
        row[self._at("late") + which] += 2 * _MISMATCH
        row[self._at("one")] -= 2 * _MISMATCH

    def _confused(self, positions: Sequence[AnswerPosition]) -> list[bool]:
        """Of each place, whether another says something else after what looks like the same tokens."""
        codes = torch.zeros(len(positions), BEFORE + 1, CODE)
        for row, place in zip(codes, positions, strict=True):
            row[: len(place.before)] = self.codes[list(place.before)]
        lengths = torch.tensor([len(place.before) for place in positions])
        tokens = torch.tensor([place.token for place in positions])
        apart = _MISMATCH * (lengths - codes.flatten(1) @ codes.flatten(1).T)
        alike = (apart < _NEAR) & (lengths == lengths[:, None]) & (tokens != tokens[:, None])
        confused: list[bool] = alike.any(1).tolist()
        return confused

    def _at(self, column: str) -> int:
        found: int = getattr(self.layout, column) - self.layout.width
        return found


def _inverse(count: Tensor) -> Tensor:
    """One over the number of tokens; of few, as of `EARLY`: what it weighs must not grow without bound."""
    return 1 / count.clamp(min=EARLY)
