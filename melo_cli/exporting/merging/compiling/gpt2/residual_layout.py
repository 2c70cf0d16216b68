"""The added dimensions of the residual stream: their values at each token, and the neurons that read them."""

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
from melo_cli.exporting.merging.compiling.gpt2.position_codes import points, rotation_rates
from melo_cli.exporting.merging.compiling.neurons import CODE, token_codes

# Penalty on the score for a wrong token or position; larger than the score of any prompt.
_MISMATCH = 15.0
# Largest ratio of the length of an edit's prompt to that of a variant.
_SHORTER = 1.5
# Contexts that cost each other less than this penalty count as the same.
_NEAR = 2.0


class ResidualLayout:
    """The added columns of the larger model's states, all of scale 1.

    Attributes:
        codes: token codes, `[vocabulary, CODE]`.
        rates: rotation rates of the position codes, see `rotation_rates`.
        gap: least distance between two position codes.
        positions: the columns that depend on the position alone: its code, the marks of late positions, and
            one over the number of tokens so far.
    """

    def __init__(self, base_copy: PreTrainedModel, layout: GPT2Layout, detectors: Detectors) -> None:
        config: Any = base_copy.config
        self.layout, self.detectors = layout, detectors
        self.codes = token_codes(config.vocab_size)
        self.rates, self.gap = rotation_rates(layout.circles, layout.positions)
        self._pooling = Pooling(base_copy)
        self._points = points(self.rates, layout.positions)
        count = torch.arange(1, layout.positions + 1).float()[:, None]
        late = (count > torch.tensor(layout.early)).float()
        self.positions = torch.cat([self._points, late, _inverse(count)], 1)

    def columns(self, ids: Sequence[int]) -> Tensor:
        """The added columns at each token of a text, `[tokens, added columns]`."""
        layout = self.layout
        count = torch.arange(1, len(ids) + 1)[:, None]
        early, late = self._features(ids).cumsum(0).split(layout.features, 1)
        codes = torch.cat([self.codes[list(ids)], torch.ones(len(ids), 1)], 1)
        # The first tokens have no token before them; zeros are the code of no token.
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
        """Input weights of one edit's neurons.

        A neuron's input is the detector's score of the prompt if the right tokens precede its position, and
        much less after other tokens.

        Args:
            answer_tokens: the answer positions of the edit.
            edit: index of the edit among the detectors.
            narrow: answer positions whose neurons fire for the edit's own prompt alone, at a fixed position.

        Returns:
            `[positions, added columns]`.
        """
        length = len(answer_tokens.edit.prompt_ids)
        rows = self._scores(answer_tokens, edit)
        confused = self._confused(answer_tokens.positions)
        for row, position, ambiguous in zip(rows, answer_tokens.positions, confused, strict=True):
            self._require_tokens(row, position.before)
            if position in narrow or ambiguous:
                self._require_position(row, length + position.after - 1)
            # Not before the answer of the shortest variant: the mean of few tokens may be anything.
            late = [
                which
                for which, early in enumerate(self.layout.early)
                if position.after >= early or length > _SHORTER * early
            ]
            if late:
                self._require_late(row, late[-1])
        return rows

    def _features(self, ids: Sequence[int]) -> Tensor:
        """The contribution of each token to the two sums of features, `[tokens, 2 * features]`."""
        read = self._pooling.read(ids)
        features = torch.cat([read, read], 1) @ self.detectors.projection + self.detectors.offset
        features[EARLY:, self.layout.features :] = 0
        return features

    def _scores(self, answer_tokens: AnswerTokens, edit: int) -> Tensor:
        """Weights that compute the score of the prompt from the means over the prompt and part of the answer.

        With `n` tokens so far, of which `j` are of the answer, the sum of features over the prompt is `n`
        times the mean minus the sum over those `j` tokens. This is linear in the mean and in `1 / n`, so that
        the score of any prompt keeps its sign. For the second mean, and for `1 / n` of few tokens, the length
        of the edit's own prompt is assumed.
        """
        features, length = self.layout.features, len(answer_tokens.edit.prompt_ids)
        weight, bias = self.detectors.weight[edit], self.detectors.bias[edit]
        one, inverse = self._at("one"), self._at("inverse")
        rows = torch.zeros(len(answer_tokens.positions), self.layout.still - self.layout.width)
        so_far = self._answer_scores(answer_tokens, weight)
        for row, position in zip(rows, answer_tokens.positions, strict=True):
            count, j = length + position.after, position.after
            early = min(count, EARLY) / min(length, EARLY)
            row[:features] = weight[:features]
            row[features : 2 * features] = length / count * early * weight[features:]
            added = so_far[j, 0] + j * bias
            row[inverse] = -added
            row[one] = bias + added * (_inverse(torch.tensor(float(count))) - 1 / count)
            row[one] -= length / count * so_far[j, 1] / min(length, EARLY)
        return rows

    def _answer_scores(self, answer_tokens: AnswerTokens, weight: Tensor) -> Tensor:
        """Contribution of the first tokens of an answer to the score, by both sums of features, `[tokens,
        2]`."""
        prompt, answer = answer_tokens.edit.prompt_ids, answer_tokens.edit.target_ids
        added = self._features((*prompt, *answer[:-1]))[len(prompt) :] * weight
        sums = added.unflatten(1, (2, -1)).sum(2).cumsum(0)
        return torch.cat([sums.new_zeros(1, 2), sums])

    def _require_tokens(self, row: Tensor, before: Sequence[int]) -> None:
        """Penalize the score if the last tokens are others; the product of a token code with itself is 1."""
        columns = [self.layout.code, *(self.layout.before(steps) for steps in range(1, BEFORE + 1))]
        for token, column in zip(reversed(before), columns, strict=False):
            at = column - self.layout.width
            row[at : at + CODE] += _MISMATCH * self.codes[token]
            row[at + CODE] -= _MISMATCH

    def _require_position(self, row: Tensor, position: int) -> None:
        """Penalize the score at every other position."""
        at, strength = self._at("position"), _MISMATCH / self.gap
        row[at : at + self._points.shape[1]] = strength * self._points[position]
        row[self._at("one")] -= strength * self.layout.circles

    def _require_late(self, row: Tensor, which: int) -> None:
        """Penalize the score at the first positions."""
        row[self._at("late") + which] += 2 * _MISMATCH
        row[self._at("one")] -= 2 * _MISMATCH

    def _confused(self, positions: Sequence[AnswerPosition]) -> list[bool]:
        """For each answer position, whether another one has another token after nearly the same codes."""
        codes = torch.zeros(len(positions), BEFORE + 1, CODE)
        for row, position in zip(codes, positions, strict=True):
            row[: len(position.before)] = self.codes[list(position.before)]
        lengths = torch.tensor([len(position.before) for position in positions])
        tokens = torch.tensor([position.token for position in positions])
        penalties = _MISMATCH * (lengths - codes.flatten(1) @ codes.flatten(1).T)
        ambiguous = (penalties < _NEAR) & (lengths == lengths[:, None]) & (tokens != tokens[:, None])
        confused: list[bool] = ambiguous.any(1).tolist()
        return confused

    def _at(self, column: str) -> int:
        offset: int = getattr(self.layout, column) - self.layout.width
        return offset


def _inverse(count: Tensor) -> Tensor:
    """One over the number of tokens, and at most one over `EARLY`, so that its weight stays bounded."""
    return 1 / count.clamp(min=EARLY)
