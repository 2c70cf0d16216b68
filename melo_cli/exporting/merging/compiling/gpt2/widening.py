"""The base GPT-2 in the corner of larger tensors, with what is added around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detectors import Detectors
from melo_cli.exporting.merging.compiling.gpt2.layout import BEFORE, EARLY, GPT2Layout
from melo_cli.exporting.merging.compiling.gpt2.places import Answered, Place
from melo_cli.exporting.merging.compiling.gpt2.pooling import Pooling
from melo_cli.exporting.merging.compiling.gpt2.positions import points, turned_back, turning_rates
from melo_cli.exporting.merging.compiling.growing import Widened, corner
from melo_cli.exporting.merging.compiling.neurons import SCALE, STRENGTH, token_codes
from melo_cli.exporting.merging.compiling.words import directions

# What a wrong token, or another position where that counts, takes from a score: more than any prompt has.
_MISMATCH = 15.0
# Contexts of which one takes less than this from the other's score count as one.
_NEAR = 2.0
# By how much a head prefers what it looks for, before the softmax.
_PREFERENCE = 100.0
# Its output goes into the stream, which the base's layer norms see without its mean.
_WRITERS = ("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")


@dataclass(frozen=True)
class GPT2Sizes:
    """Mean standard deviations of the base's states.

    Attributes:
        embedded: before the first layer.
        layers: before each layer's feed-forward.
        last: before the last norm.
    """

    embedded: float
    layers: tuple[float, ...]
    last: float


class WidenedGPT2(Widened):
    """The base GPT-2 with what is added around it.

    Args:
        model: a plain copy of the base, float32.
        answered: what each edit answers, and to what.
        placed: the edits whose neurons stand in each layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: GPT2Layout,
        detectors: Detectors,
        answered: Sequence[Answered],
        placed: Sequence[Sequence[int]],
        sizes: GPT2Sizes,
    ) -> None:
        self._config: Any = model.config
        self._layout, self._sizes, self._detectors = layout, sizes, detectors
        weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
        # The output layer of its own that the larger model has, whatever the base's is tied to.
        words = weights.setdefault("lm_head.weight", weights["transformer.wte.weight"])
        super().__init__(
            {name: _grown(name, tuple(weight.shape), layout) for name, weight in weights.items()},
            layout.settings(self._config.layer_norm_epsilon),
        )
        self._pooling = Pooling(model)
        self._scale = SCALE * sizes.embedded
        self._codes = token_codes(self._config.vocab_size)
        self._rates, self._gap = turning_rates(layout.circles, layout.positions)
        self._points = points(self._rates, layout.positions)
        self._embed()
        self._read_before(model)
        scaled = words.float() * weights["transformer.ln_f.weight"]
        self._answer(
            answered,
            placed,
            scaled - scaled.mean(1, keepdim=True),
            words.float() @ weights["transformer.ln_f.bias"].float(),
        )

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        grown = super().apply(parameter, weight)
        if parameter.endswith(_WRITERS):
            grown[..., self._layout.balance] = -grown[..., self._layout.width :].sum(-1)
        return grown

    def _keep(self, parameter: str, weight: Tensor, grown: Tensor) -> None:
        if ".c_attn." in parameter:
            # Queries, keys and values beside each other, each of which grows.
            for part, place in zip(weight.chunk(3, -1), grown.chunk(3, -1), strict=True):
                corner(part, place).copy_(part)
        elif parameter.endswith(_WRITERS):
            corner(weight, grown).copy_(weight - weight.mean(-1, keepdim=True))
        elif _is_norm(parameter) and parameter.endswith("weight"):
            corner(weight, grown).copy_(weight * self._layout.shrink)
        else:
            corner(weight, grown).copy_(weight)

    def _norm(self, parameter: str, first: int, last: int, size: float) -> None:
        """Give columns of `SCALE`, up to `last`, the size 1 after a layer norm that divides by `size`."""
        factor = size * self._layout.shrink / self._scale
        self._put(parameter, (first,), torch.full((last - first,), factor))

    def _embed(self) -> None:
        """A code and a one with each token; with each position its points, and one over the tokens so far."""
        layout = self._layout
        tokens = torch.cat([self._codes, torch.ones(len(self._codes), 1)], 1)
        self._put("transformer.wte.weight", (0, layout.code), tokens * self._scale)
        count = torch.arange(1, layout.positions + 1).float()[:, None]
        places = torch.cat([self._points, (count > EARLY).float(), _inverse(count)], 1)
        self._put("transformer.wpe.weight", (0, layout.position), places * self._scale)

    def _read_before(self, model: Any) -> None:
        """The first layer's attention: both means at every token, and the tokens before it."""
        layout, layer = self._layout, "transformer.h.0"
        self._norm(f"{layer}.ln_1.weight", layout.code, layout.one + 1, self._sizes.embedded)
        self._norm(f"{layer}.ln_1.weight", layout.position, layout.inverse, self._sizes.embedded)
        per_mean = layout.features
        halves = self._detectors.projection.split([layout.width] * 2)
        for which, half in enumerate(halves):
            features = slice(which * per_mean, (which + 1) * per_mean)
            # Without queries and keys, attention is to all tokens alike.
            self._value(which, 0, half[:, features], self._detectors.offset[features])
            self._write(which, layout.means + which * per_mean, per_mean)
        preference = _PREFERENCE / model.transformer.h[0].attn.scaling
        self._attend_early(preference)
        for steps in range(1, BEFORE + 1):
            group = 1 + steps
            self._attend_before(group, steps, preference / self._gap)
            self._value(group, layout.code, torch.eye(layout.one + 1 - layout.code))
            self._write(group, layout.before(steps), layout.one + 1 - layout.code)

    def _value(self, group: int, row: int, weight: Tensor, bias: Tensor | None = None) -> None:
        at = 2 * self._layout.total + self._layout.group(group)
        self._put("transformer.h.0.attn.c_attn.weight", (row, at), weight)
        if bias is not None:
            self._put("transformer.h.0.attn.c_attn.bias", (at,), bias)

    def _write(self, group: int, column: int, count: int) -> None:
        self._put(
            "transformer.h.0.attn.c_proj.weight",
            (self._layout.group(group), column),
            torch.eye(count) * self._scale,
        )

    def _attend_early(self, preference: float) -> None:
        """The second mean: away from all positions but the first."""
        layout, attention = self._layout, "transformer.h.0.attn.c_attn"
        root = torch.tensor([math.sqrt(preference)])
        for head in layout.heads(1):
            self._put(f"{attention}.bias", (head,), root)
            self._put(f"{attention}.weight", (layout.late, layout.total + head), -root[:, None])

    def _attend_before(self, group: int, steps: int, preference: float) -> None:
        """To the token so many positions before: zero there, and far below zero at all others, however large
        the state that a position's points are divided by."""
        layout, attention = self._layout, "transformer.h.0.attn.c_attn.weight"
        root = math.sqrt(preference)
        count = torch.full((1, 1), math.sqrt(layout.circles))
        for head in layout.heads(group):
            key, behind = layout.total + head, 2 * layout.circles
            self._put(attention, (layout.position, head), turned_back(self._rates, steps) * root)
            self._put(attention, (layout.one, head + behind), -count * root)
            self._put(attention, (layout.position, key), torch.eye(behind) * root)
            self._put(attention, (layout.one, key + behind), count * root)

    def _answer(
        self,
        answered: Sequence[Answered],
        placed: Sequence[Sequence[int]],
        words: Tensor,
        beside: Tensor,
    ) -> None:
        """The feed-forwards: a neuron for each place in an edit's answer."""
        layout = self._layout
        spoken = sorted({place.token for each in answered for place in each.places})
        known = dict(zip(spoken, directions(words, beside / math.sqrt(layout.width), spoken), strict=True))
        for layer, edits in enumerate(placed):
            block = f"transformer.h.{layer}"
            half = math.sqrt(self._sizes.layers[layer])
            self._norm(f"{block}.ln_2.weight", layout.means, layout.balance, half)
            if not edits:
                continue
            inputs = torch.cat([self._neurons(answered[edit], edit) for edit in edits])
            said = torch.cat([_said(answered[edit], known) for edit in edits])
            strength = STRENGTH * self._sizes.last * math.sqrt(layout.width) / layout.sharpness
            sharp = inputs.T * half * layout.sharpness
            self._put(f"{block}.mlp.c_fc.weight", (layout.means, layout.hidden), sharp)
            self._put(f"{block}.mlp.c_proj.weight", (layout.hidden, 0), said * strength)

    def _neurons(self, answered: Answered, edit: int) -> Tensor:
        """Inputs `[places, added columns]` of one edit's neurons: its score of the prompt, after the tokens
        that stand before the place, and much less after others."""
        rows = self._scores(answered, edit)
        for row, place in zip(rows, answered.places, strict=True):
            self._recognise(row, place.before)
        for row, place in zip(rows, answered.places, strict=True):
            length = len(answered.edit.prompt_ids)
            if any(self._confused(place, other) for other in answered.places):
                self._stand_at(row, length + place.after - 1)
            # Where no wording's answer can be so near the beginning, as few tokens may have any mean.
            if place.after >= EARLY or length > 2 * EARLY:
                self._stand_late(row)
        return rows

    def _scores(self, answered: Answered, edit: int) -> Tensor:
        """The score that the prompt had, from the means over prompt and beginning of the answer.

        With `n` tokens so far, of which `j` are the answer's, the sum of features over the prompt is `n` times
        the mean less the sum over those `j`: linear in the mean and `1 / n`. So the score of any prompt keeps
        its sign; but for the second mean, and for `1 / n` of few tokens, the edit's own length is assumed.
        """
        layout = self._layout
        features, length = layout.features, len(answered.edit.prompt_ids)
        weight, bias = self._detectors.weight[edit], self._detectors.bias[edit]
        one, inverse = layout.one - layout.width, layout.inverse - layout.width
        rows = torch.zeros(len(answered.places), layout.balance - layout.width)
        so_far = self._answer_scores(answered, weight)
        for row, place in zip(rows, answered.places, strict=True):
            count, j = length + place.after, place.after
            early = min(count, EARLY) / min(length, EARLY)
            row[:features] = weight[:features]
            row[features : 2 * features] = length / count * early * weight[features:]
            added = so_far[0, j] + j * bias
            row[inverse] = -added
            row[one] = bias + added * (_inverse(torch.tensor(float(count))) - 1 / count)
            row[one] -= length / count * so_far[1, j] / min(length, EARLY)
        return rows

    def _answer_scores(self, answered: Answered, weight: Tensor) -> Tensor:
        """What the first `j` tokens of an answer add to both sums of features, in the score `[2, tokens]`."""
        length, features = len(answered.edit.prompt_ids), self._layout.features
        read = self._pooling.read((*answered.edit.prompt_ids, *answered.edit.target_ids[:-1]))[length:]
        tokens = torch.cat([read, read], 1) if len(read) else read.new_zeros(0, 2 * self._layout.width)
        found = []
        for which in range(2):
            half = slice(which * features, (which + 1) * features)
            rows = slice(which * self._layout.width, (which + 1) * self._layout.width)
            projected = tokens[:, rows] @ self._detectors.projection[rows, half] + self._detectors.offset[half]
            found.append(projected @ weight[half])
        found[1][max(0, EARLY - length) :] = 0
        sums = torch.stack(found).cumsum(1)
        return torch.cat([sums.new_zeros(2, 1), sums], 1)

    def _recognise(self, row: Tensor, before: Sequence[int]) -> None:
        """Take from the score where the last tokens are others: a code's product with itself is 1."""
        layout = self._layout
        columns = [layout.code, *(layout.before(steps) for steps in range(1, BEFORE + 1))]
        for token, column in zip(reversed(before), columns, strict=False):
            at = column - layout.width
            row[at : at + self._codes.shape[1]] += _MISMATCH * self._codes[token]
            row[at + self._codes.shape[1]] -= _MISMATCH

    def _stand_at(self, row: Tensor, position: int) -> None:
        """Take from the score at every other position."""
        layout = self._layout
        at, one = layout.position - layout.width, layout.one - layout.width
        strength = _MISMATCH / self._gap
        row[at : at + 2 * layout.circles] = strength * self._points[position]
        row[one] -= strength * layout.circles

    def _stand_late(self, row: Tensor) -> None:
        """Take from the score among the first positions."""
        row[self._layout.late - self._layout.width] += 2 * _MISMATCH
        row[self._layout.one - self._layout.width] -= 2 * _MISMATCH

    def _confused(self, place: Place, other: Place) -> bool:
        """Whether another place says something else after what looks like the same tokens."""
        if place.token == other.token or len(place.before) != len(other.before):
            return False
        same = (self._codes[list(place.before)] * self._codes[list(other.before)]).sum(1)
        return bool(_MISMATCH * (1 - same).sum() < _NEAR)


def _said(answered: Answered, known: Mapping[int, Tensor]) -> Tensor:
    """What each neuron adds `[places, d]`: more, the more of the answer makes its score smaller."""
    length = len(answered.edit.prompt_ids)
    return torch.stack([known[place.token] * (1 + place.after / length) for place in answered.places])


def _inverse(count: Tensor) -> Tensor:
    """One over the number of tokens; of few, as of `EARLY`: what it weighs must not grow without bound."""
    return 1 / count.clamp(min=EARLY)


def _is_norm(parameter: str) -> bool:
    return parameter.rpartition(".")[0].rpartition(".")[2].startswith("ln_")


def _grown(name: str, shape: tuple[int, ...], layout: GPT2Layout) -> tuple[int, ...]:
    """The shape of a tensor in the larger model."""
    wider = layout.total - layout.width
    by = {
        "c_attn": (wider, 3 * wider),
        "attn.c_proj": (wider, wider),
        "c_fc": (wider, layout.neurons),
        "mlp.c_proj": (layout.neurons, wider),
    }
    module = name.rpartition(".")[0]
    added = next((size for part, size in by.items() if module.endswith(part)), (0, wider))
    return tuple(size + more for size, more in zip(shape, added[-len(shape) :], strict=True))
