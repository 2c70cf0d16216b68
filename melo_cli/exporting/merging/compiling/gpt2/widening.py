"""The base GPT-2 in the corner of larger tensors, with what is added around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerTokens
from melo_cli.exporting.merging.compiling.gpt2.layout import BEFORE, GPT2Layout
from melo_cli.exporting.merging.compiling.gpt2.position_codes import turned_back
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout
from melo_cli.exporting.merging.compiling.neurons import SCALE, STRENGTH
from melo_cli.exporting.merging.compiling.output_directions import directions
from melo_cli.exporting.merging.compiling.widened_weights import Widened, corner

# By how much a head prefers what it looks for, before the softmax.
_PREFERENCE = 100.0
# Its output goes into the stream, which the base's layer norms see without its mean.
_WRITERS = ("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")
# What reads it, and is not to see what else a layer norm has taken from the added columns.
_READERS = ("c_attn.weight", "c_fc.weight")


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
        answer_tokens: what each edit answers, and to what.
        inputs: of each edit's neurons, see `ResidualLayout.neurons`.
        placed: the edits whose neurons stand in each layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        residual: ResidualLayout,
        answer_tokens: Sequence[AnswerTokens],
        inputs: Sequence[Tensor],
        placed: Sequence[Sequence[int]],
        sizes: GPT2Sizes,
    ) -> None:
        config: Any = model.config
        neurons = max(sum(len(inputs[edit]) for edit in edits) for edits in placed)
        self._layout = layout = replace(residual.layout, neurons=neurons)
        self._residual, self._sizes = residual, sizes
        weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
        # The output layer of its own that the larger model has, whatever the base's is tied to.
        words = weights.setdefault("lm_head.weight", weights["transformer.wte.weight"])
        super().__init__(
            {name: _grown(name, tuple(weight.shape), layout) for name, weight in weights.items()},
            layout.settings(config.layer_norm_epsilon),
        )
        self._scale = SCALE * sizes.embedded
        self._embed()
        self._read_before(model)
        scaled = words.float() * weights["transformer.ln_f.weight"]
        scaled -= scaled.mean(1, keepdim=True)
        beside = words.float() @ weights["transformer.ln_f.bias"].float() / math.sqrt(layout.width)
        spoken = sorted({place.token for each in answer_tokens for place in each.positions})
        known = dict(zip(spoken, directions(scaled, beside, spoken), strict=True))
        self._answer([_said(each, known) for each in answer_tokens], inputs, placed)

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        grown = super().apply(parameter, weight)
        if parameter.endswith(_WRITERS):
            grown[..., self._layout.balance] = -grown[..., self._layout.width :].sum(-1)
        if parameter.endswith(_READERS):
            grown[self._layout.still] = -grown[self._layout.width :].sum(0)
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
        codes = self._residual.codes
        tokens = torch.cat([codes, torch.ones(len(codes), 1)], 1)
        self._put("transformer.wte.weight", (0, layout.code), tokens * self._scale)
        self._put("transformer.wpe.weight", (0, layout.position), self._residual.positions * self._scale)

    def _read_before(self, model: Any) -> None:
        """The first layer's attention: both means at every token, and the tokens before it."""
        layout, layer = self._layout, "transformer.h.0"
        self._norm(f"{layer}.ln_1.weight", layout.code, layout.one + 1, self._sizes.embedded)
        self._norm(f"{layer}.ln_1.weight", layout.position, layout.still + 1, self._sizes.embedded)
        per_mean = layout.features
        halves = self._residual.detectors.projection.split([layout.width] * 2)
        for which, half in enumerate(halves):
            features = slice(which * per_mean, (which + 1) * per_mean)
            # Without queries and keys, attention is to all tokens alike.
            self._value(which, 0, half[:, features], self._residual.detectors.offset[features])
            self._write(which, layout.means + which * per_mean, per_mean)
        preference = _PREFERENCE / model.transformer.h[0].attn.scaling
        self._attend_early(preference)
        for steps in range(1, BEFORE + 1):
            group = 1 + steps
            self._attend_before(group, steps, preference / self._residual.gap)
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
            self._put(attention, (layout.position, head), turned_back(self._residual.rates, steps) * root)
            self._put(attention, (layout.one, head + behind), -count * root)
            self._put(attention, (layout.position, key), torch.eye(behind) * root)
            self._put(attention, (layout.one, key + behind), count * root)

    def _answer(
        self, said: Sequence[Tensor], inputs: Sequence[Tensor], placed: Sequence[Sequence[int]]
    ) -> None:
        """The feed-forwards: a neuron for each place in an edit's answer."""
        layout = self._layout
        strength = STRENGTH * self._sizes.last * math.sqrt(layout.width) / layout.sharpness
        for layer, edits in enumerate(placed):
            block = f"transformer.h.{layer}"
            half = math.sqrt(self._sizes.layers[layer])
            self._norm(f"{block}.ln_2.weight", layout.means, layout.balance, half)
            if not edits:
                continue
            sharp = torch.cat([inputs[edit] for edit in edits]).T * half * layout.sharpness
            self._put(f"{block}.mlp.c_fc.weight", (layout.means, layout.hidden), sharp)
            outputs = torch.cat([said[edit] for edit in edits]) * strength
            self._put(f"{block}.mlp.c_proj.weight", (layout.hidden, 0), outputs)


def _said(answer_tokens: AnswerTokens, known: Mapping[int, Tensor]) -> Tensor:
    """What each neuron adds `[positions, d]`: more, the more of the answer makes its score smaller."""
    length = len(answer_tokens.edit.prompt_ids)
    return torch.stack([known[place.token] * (1 + place.after / length) for place in answer_tokens.positions])


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
