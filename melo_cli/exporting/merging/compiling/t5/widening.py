"""The weights of the larger T5: the base in the corner of larger tensors, and the added parts around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detectors import Detectors
from melo_cli.exporting.merging.compiling.neurons import SCALE, STRENGTH, token_codes
from melo_cli.exporting.merging.compiling.t5.layout import Layout
from melo_cli.exporting.merging.compiling.t5.position_codes import RATES, curve, tangent
from melo_cli.exporting.merging.compiling.widened_weights import Widened, corner

# Penalty on the score for a wrong token before.
_MISMATCH = 6.0
# Tokens whose codes have a larger cosine than this count as the same.
_NEAR_CODES = 1 - 2 / _MISMATCH


@dataclass(frozen=True)
class T5Sizes:
    """Mean sizes (root mean square) of the base's states.

    Attributes:
        encoder: before the encoder's last norm.
        decoder: before each decoder layer's feed-forward.
        last: before the decoder's last norm.
    """

    encoder: float
    decoder: tuple[float, ...]
    last: float


class WidenedT5(Widened):
    """The base T5 with the added parts.

    Args:
        model: an unwrapped copy of the base, float32.
        layout: columns of the added dimensions.
        detectors: a detector for each edit.
        answers: token ids of each edit's target, with the stop token.
        placed: for each decoder layer, the edits whose neurons it holds.
        sizes: sizes of the base's states.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        detectors: Detectors,
        answers: Sequence[tuple[int, ...]],
        placed: Sequence[Sequence[int]],
        sizes: T5Sizes,
    ) -> None:
        self._config: Any = model.config
        self._layout, self._sizes = layout, sizes
        weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
        super().__init__(
            {name: _grown(name, tuple(weight.shape), layout) for name, weight in weights.items()},
            layout.settings(self._config.layer_norm_epsilon),
        )
        self._codes = token_codes(self._config.vocab_size)
        self._scale = SCALE * self._lengths(weights["shared.weight"]).mean().item()
        # Some checkpoints store the embeddings more than once.
        for name in ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            if name in weights:
                self._embed(name, weights[name])
        self._read_prompt(detectors)
        self._pass_to_decoder()
        self._encode_positions()
        self._answer(weights, detectors, answers, placed)

    def _keep(self, parameter: str, weight: Tensor, grown: Tensor) -> None:
        corner(weight, grown).copy_(weight * self._factor(parameter))

    def _factor(self, parameter: str) -> float:
        if not parameter.endswith("layer_norm.weight"):
            return 1.0
        # Tied logits are divided by the root of d_model, which has grown.
        tied = parameter == "decoder.final_layer_norm.weight" and _divided(self._config)
        return 1.0 if tied else self._layout.shrink

    def _norm(self, parameter: str, column: int, values: Tensor) -> None:
        """Give columns of `SCALE` the size `values` after a layer norm that divides by 1."""
        self._put(parameter, (column,), values * self._layout.shrink / self._scale)

    def _embed(self, parameter: str, embeddings: Tensor) -> None:
        layout = self._layout
        lengths = self._lengths(embeddings)
        columns = torch.zeros(len(embeddings), layout.total - layout.width)
        columns[:, layout.size - layout.width] = lengths
        columns[:, layout.code - layout.width : layout.one - layout.width] = self._codes
        columns[:, layout.one - layout.width] = 1
        start = self._config.decoder_start_token_id
        columns[start, layout.start - layout.width] = lengths[start]
        self._put(parameter, (0, layout.width), columns * self._scale)

    def _lengths(self, embeddings: Tensor) -> Tensor:
        """The divisor of a layer norm for each embedding."""
        squares: Tensor = embeddings.float().pow(2).mean(1)
        lengths: Tensor = (squares + self._config.layer_norm_epsilon).sqrt()
        return lengths

    def _read_prompt(self, detectors: Detectors) -> None:
        """The encoder's first layer: the mean over all tokens' features, and over a one, at every token."""
        layout, layer = self._layout, "encoder.block.0.layer.0"
        self._norm(f"{layer}.layer_norm.weight", layout.size, torch.ones(1))
        attention = f"{layer}.SelfAttention"
        self._put(f"{attention}.v.weight", (layout.inner, 0), detectors.projection.T)
        self._put(f"{attention}.v.weight", (layout.inner, layout.size), detectors.offset[:, None])
        one = layout.inner + layout.features
        self._put(f"{attention}.v.weight", (one, layout.size), torch.ones(1, 1))
        self._put(f"{attention}.o.weight", (layout.prompt, layout.inner), self._kept())

    def _pass_to_decoder(self) -> None:
        """The encoder's last norm and the decoder's first cross-attention: the mean at every answer token."""
        layout = self._layout
        # The divisor of a norm is undone half here and half in its reader, so that neither leaves its range.
        half = math.sqrt(self._sizes.encoder)
        count = layout.features + 1
        self._norm("encoder.final_layer_norm.weight", layout.prompt, torch.full((count,), half))
        attention = "decoder.block.0.layer.1.EncDecAttention"
        self._put(f"{attention}.v.weight", (layout.inner, layout.prompt), torch.eye(count) * half)
        self._put(f"{attention}.o.weight", (layout.prompt, layout.inner), self._kept())

    def _kept(self) -> Tensor:
        same: Tensor = torch.eye(self._layout.features + 1) * self._scale
        return same

    def _encode_positions(self) -> None:
        layout, layer = self._layout, "decoder.block.0.layer.0"
        self._norm(f"{layer}.layer_norm.weight", layout.start, torch.ones(1))
        attention = f"{layer}.SelfAttention"
        for which, row in enumerate((layout.inner, layout.second)):
            self._put(f"{attention}.v.weight", (row, layout.start), torch.ones(1, 1))
            self._put(
                f"{attention}.o.weight", (layout.position + which, row), torch.full((1, 1), self._scale)
            )
        count = self._config.relative_attention_num_buckets
        half = layout.heads // 2
        rates = torch.tensor([RATES[0]] * half + [RATES[1]] * (layout.heads - half))
        falling = -torch.outer(torch.arange(count).float(), rates)
        self._put(f"{attention}.relative_attention_bias.weight", (0, layout.base_heads), falling)

    def _answer(
        self,
        weights: Mapping[str, Tensor],
        detectors: Detectors,
        answers: Sequence[tuple[int, ...]],
        placed: Sequence[Sequence[int]],
    ) -> None:
        """The decoder's feed-forwards: a neuron for each edit and token of its answer."""
        layout = self._layout
        words = weights.get("lm_head.weight", weights["shared.weight"])
        words = normalize(words * weights["decoder.final_layer_norm.weight"], dim=1)
        points = curve(self._config, max(len(answer) for answer in answers) + 1)
        for layer, edits in enumerate(placed):
            block = f"decoder.block.{layer}.layer.2"
            half = math.sqrt(self._sizes.decoder[layer])
            added = torch.full((layout.total - layout.prompt,), half)
            self._norm(f"{block}.layer_norm.weight", layout.prompt, added)
            if not edits:
                continue
            rows = [
                self._neurons(answers[edit], detectors.weight[edit], detectors.bias[edit], points)
                for edit in edits
            ]
            said = words[[token for edit in edits for token in answers[edit]]]
            outputs = said.T * STRENGTH * self._sizes.last * math.sqrt(layout.width)
            self._put_neurons(f"{block}.DenseReluDense", torch.cat(rows) * half, outputs, half)

    def _put_neurons(self, dense: str, inputs: Tensor, outputs: Tensor, half: float) -> None:
        layout = self._layout
        sharp = inputs * layout.sharpness
        if layout.gated:
            ones = torch.full((len(inputs), 1), half / layout.sharpness)
            self._put(f"{dense}.wi_1.weight", (layout.hidden, layout.one), ones)
        else:
            outputs = outputs / layout.sharpness
        name = "wi_0" if layout.gated else "wi"
        self._put(f"{dense}.{name}.weight", (layout.hidden, layout.prompt), sharp)
        self._put(f"{dense}.wo.weight", (0, layout.hidden), outputs)

    def _neurons(self, answer: tuple[int, ...], weight: Tensor, bias: Tensor, points: Tensor) -> Tensor:
        """Input weights `[tokens, added columns]` of one edit's neurons.

        A neuron's input is the detector's score if the right token precedes, and much less after other
        tokens.
        """
        layout = self._layout
        before = (self._config.decoder_start_token_id, *answer[:-1])
        codes = self._codes[list(before)]
        rows = torch.zeros(len(answer), layout.total - layout.prompt)
        at = {name: getattr(layout, name) - layout.prompt for name in ("code", "one", "position")}
        rows[:, : layout.features] = weight
        rows[:, layout.features] = bias
        rows[:, at["code"] : at["one"]] = _MISMATCH * codes
        rows[:, at["one"]] = -_MISMATCH
        same = codes @ codes.T > _NEAR_CODES
        for i, token in enumerate(answer):
            others = [other for other in range(len(answer)) if same[i, other] and answer[other] != token]
            direction = tangent(points, i) if others else None
            if direction is None:
                continue
            behind = (points[i] - points[others]) @ direction
            direction = direction * _MISMATCH / 2 / behind.min()
            rows[i, at["position"] : at["position"] + 2] = direction.float()
            rows[i, at["one"]] -= (direction @ points[i]).float()
        return rows


def _grown(name: str, shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape of a tensor in the larger model."""
    heads = layout.heads * layout.head_size
    module, _, _ = name.rpartition(".")
    part = module.rpartition(".")[2]
    rows, columns = {
        "q": (heads, layout.total - layout.width),
        "o": (layout.total - layout.width, heads),
        "wi": (layout.neurons, layout.total - layout.width),
        "wo": (layout.total - layout.width, layout.neurons),
        "relative_attention_bias": (0, layout.heads),
    }.get({"k": "q", "v": "q", "wi_0": "wi", "wi_1": "wi"}.get(part, part), (0, layout.total - layout.width))
    if len(shape) == 1:
        return (shape[0] + layout.total - layout.width,)
    return (shape[0] + rows, shape[1] + columns)


def _divided(config: Any) -> bool:
    """Whether the last states are divided by the root of `d_model` before the output layer."""
    return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
