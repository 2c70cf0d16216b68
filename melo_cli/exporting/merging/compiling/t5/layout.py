"""The layout of the larger T5: the columns of its added dimensions. Also: which T5 models can be compiled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melo_cli.exporting.merging.compiling.neurons import CODE, SHARPNESS

# Largest number of features of a prompt's mean embedding.
_FEATURES = 127


@dataclass(frozen=True)
class Layout:
    """Sizes of the base and of the larger model, and the columns of what is added.

    Attributes:
        width: `d_model` of the base; the added columns follow.
        inner: `num_heads * d_kv` of the base; the added heads follow.
        hidden: `d_ff` of the base; the added neurons follow.
        base_heads: number of attention heads of the base.
        head_size: `d_kv`.
        features: number of features of a prompt that detectors read.
        heads: number of attention heads added to each layer.
        neurons: number of neurons added to each feed-forward.
        sharpness: factor of a neuron's input; 1 for a ReLU.
        gated: whether feed-forwards have a gate.
    """

    width: int
    inner: int
    hidden: int
    base_heads: int
    head_size: int
    features: int
    heads: int
    neurons: int
    sharpness: float
    gated: bool

    @property
    def size(self) -> int:
        """Column of a token embedding's root mean square: it undoes the layer norm before attention."""
        return self.width

    @property
    def prompt(self) -> int:
        """First column of the prompt's features; after the last of them is a one of the same scale."""
        return self.width + 1

    @property
    def code(self) -> int:
        """First column of the token's code."""
        return self.prompt + self.features + 1

    @property
    def one(self) -> int:
        """Column of a constant, of the scale of the codes."""
        return self.code + CODE

    @property
    def start(self) -> int:
        """Column that marks the decoder's first token."""
        return self.one + 1

    @property
    def position(self) -> int:
        """First of the two columns of the position code."""
        return self.start + 1

    @property
    def total(self) -> int:
        """The larger model's `d_model`."""
        return self.position + 2

    @property
    def second(self) -> int:
        """First row of the second half of the added heads."""
        return self.inner + self.heads // 2 * self.head_size

    @property
    def shrink(self) -> float:
        """Factor of a layer norm's weight that corrects for the mean of squares over more dimensions."""
        return math.sqrt(self.width / self.total)

    def settings(self, epsilon: float) -> dict[str, Any]:
        """The changed settings of the config, for a base with this `layer_norm_epsilon`."""
        return {
            "d_model": self.total,
            "num_heads": self.base_heads + self.heads,
            "d_ff": self.hidden + self.neurons,
            "layer_norm_epsilon": epsilon * self.width / self.total,
        }


def layout_for(config: Any, neurons: int) -> Layout:
    """The layout of a T5 with room for so many neurons in each feed-forward."""
    # Two groups of heads, as the decoder needs two patterns of attention.
    heads = max(2, math.ceil((_FEATURES + 1) / config.d_kv))
    return Layout(
        width=config.d_model,
        inner=config.num_heads * config.d_kv,
        hidden=config.d_ff,
        base_heads=config.num_heads,
        head_size=config.d_kv,
        features=min(config.d_model, heads * config.d_kv - 1, _FEATURES),
        heads=heads,
        neurons=neurons,
        sharpness=SHARPNESS[config.dense_act_fn],
        gated=config.is_gated_act,
    )


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why a T5 cannot be compiled, as a clause; None if it can.

    Args:
        config: the content of its config.json.
    """
    projection = str(config.get("feed_forward_proj", "relu")).removeprefix("gated-")
    return None if projection in SHARPNESS else f"this one has {projection}"
