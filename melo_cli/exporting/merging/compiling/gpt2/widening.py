"""The weights of the larger GPT-2: the base in the corner of larger tensors, and the added parts around
it."""

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
from melo_cli.exporting.merging.compiling.gpt2.position_codes import rotated_back
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout
from melo_cli.exporting.merging.compiling.neurons import SCALE, STRENGTH
from melo_cli.exporting.merging.compiling.output_directions import directions
from melo_cli.exporting.merging.compiling.widened_weights import Widened, corner

# Lead of the attended position over all others, before the softmax.
_PREFERENCE = 100.0
# Weights that write into the residual stream; the base's layer norms subtract its mean.
_WRITERS = ("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")
# Weights that read the residual stream; they undo what a layer norm subtracts from the added columns too
# much.
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
    """The base GPT-2 with the added parts.

    Args:
        model: an unwrapped copy of the base, float32.
        residual: the added columns.
        answer_tokens: the answer positions of each edit.
        inputs: input weights of each edit's neurons, see `ResidualLayout.neurons`.
        placed: for each layer, the edits whose neurons it holds.
        sizes: sizes of the base's states.
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
        # The larger model has an output layer of its own, also if the base ties it to the embeddings.
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
        bias = words.float() @ weights["transformer.ln_f.bias"].float() / math.sqrt(layout.width)
        tokens = sorted({position.token for each in answer_tokens for position in each.positions})
        known = dict(zip(tokens, directions(scaled, bias, tokens), strict=True))
        self._answer([_outputs(each, known) for each in answer_tokens], inputs, placed)

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        grown = super().apply(parameter, weight)
        if parameter.endswith(_WRITERS):
            grown[..., self._layout.balance] = -grown[..., self._layout.width :].sum(-1)
        if parameter.endswith(_READERS):
            grown[self._layout.still] = -grown[self._layout.width :].sum(0)
        return grown

    def _keep(self, parameter: str, weight: Tensor, grown: Tensor) -> None:
        if ".c_attn." in parameter:
            # Queries, keys and values lie side by side, and each of them grows.
            for part, larger in zip(weight.chunk(3, -1), grown.chunk(3, -1), strict=True):
                corner(part, larger).copy_(part)
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
        """Add the columns of the embeddings: a code and a one for each token, the position columns for each
        position."""
        layout = self._layout
        codes = self._residual.codes
        tokens = torch.cat([codes, torch.ones(len(codes), 1)], 1)
        self._put("transformer.wte.weight", (0, layout.code), tokens * self._scale)
        self._put("transformer.wpe.weight", (0, layout.position), self._residual.positions * self._scale)

    def _read_before(self, model: Any) -> None:
        """Add the heads of the first layer: both means at every token, and the tokens before it."""
        layout, layer = self._layout, "transformer.h.0"
        self._norm(f"{layer}.ln_1.weight", layout.code, layout.one + 1, self._sizes.embedded)
        self._norm(f"{layer}.ln_1.weight", layout.position, layout.still + 1, self._sizes.embedded)
        per_mean = layout.features
        halves = self._residual.detectors.projection.split([layout.width] * 2)
        for which, half in enumerate(halves):
            features = slice(which * per_mean, (which + 1) * per_mean)
            # Without queries and keys, a head attends to all tokens equally.
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
        """Make the heads of the second mean attend to the first positions alone."""
        layout, attention = self._layout, "transformer.h.0.attn.c_attn"
        root = torch.tensor([math.sqrt(preference)])
        for head in layout.heads(1):
            self._put(f"{attention}.bias", (head,), root)
            self._put(f"{attention}.weight", (layout.late, layout.total + head), -root[:, None])

    def _attend_before(self, group: int, steps: int, preference: float) -> None:
        """Make a group of heads attend to the token `steps` before.

        The attention score is zero there and far below zero at all other positions, whatever a layer norm
        divides the position code by.
        """
        layout, attention = self._layout, "transformer.h.0.attn.c_attn.weight"
        root = math.sqrt(preference)
        count = torch.full((1, 1), math.sqrt(layout.circles))
        for head in layout.heads(group):
            key, behind = layout.total + head, 2 * layout.circles
            self._put(attention, (layout.position, head), rotated_back(self._residual.rates, steps) * root)
            self._put(attention, (layout.one, head + behind), -count * root)
            self._put(attention, (layout.position, key), torch.eye(behind) * root)
            self._put(attention, (layout.one, key + behind), count * root)

    def _answer(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], placed: Sequence[Sequence[int]]
    ) -> None:
        """Add the neurons of the feed-forwards: one for each position of an edit's answer."""
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
            written = torch.cat([outputs[edit] for edit in edits]) * strength
            self._put(f"{block}.mlp.c_proj.weight", (layout.hidden, 0), written)


def _outputs(answer_tokens: AnswerTokens, known: Mapping[int, Tensor]) -> Tensor:
    """Output weights of an edit's neurons `[positions, d]`; they grow with the position, as the score
    falls."""
    length = len(answer_tokens.edit.prompt_ids)
    return torch.stack(
        [known[position.token] * (1 + position.after / length) for position in answer_tokens.positions]
    )


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
