"""The layout of the larger GPT-2: the columns of its added dimensions. Also: which GPT-2 models can be
compiled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GPT2Config

from melo_cli.exporting.merging.compiling.neurons import CODE, SHARPNESS

# Largest number of features of each mean embedding.
_FEATURES = 64
# The second mean is over the first tokens alone, so that a name at the start of a long prompt has enough
# weight.
EARLY = 16
# Number of tokens before the present one that a neuron reads.
BEFORE = 2
# Largest number of circles of a position code; a head needs two dimensions for each circle, and one more.
_CIRCLES = 16
_SMALLEST_HEAD = 8


@dataclass(frozen=True)
class GPT2Layout:
    """Sizes of the base and of the larger model, and the columns of what is added.

    Attributes:
        width: `n_embd` of the base; the added columns follow.
        hidden: inner size of the base's feed-forwards; the added neurons follow.
        head_size: dimensions of an attention head.
        positions: `n_positions`.
        features: number of features of each of the two means that detectors read.
        neurons: number of neurons added to each feed-forward.
        sharpness: factor of a neuron's input; 1 for a ReLU.
    """

    width: int
    hidden: int
    head_size: int
    positions: int
    features: int
    neurons: int
    sharpness: float

    @property
    def circles(self) -> int:
        """Number of circles of a position code."""
        return min(_CIRCLES, (self.head_size - 1) // 2)

    @property
    def means(self) -> int:
        """First column of the features of the mean over all tokens; those of the first tokens follow."""
        return self.width

    @property
    def code(self) -> int:
        """First column of the token's code."""
        return self.means + 2 * self.features

    @property
    def one(self) -> int:
        """Column of a constant, of the scale of the codes."""
        return self.code + CODE

    def before(self, steps: int) -> int:
        """First column of the code of the token so many positions before, and of a one beside it."""
        return self.one + 1 + (steps - 1) * (CODE + 1)

    @property
    def position(self) -> int:
        """First column of the position code."""
        return self.before(BEFORE + 1)

    @property
    def late(self) -> int:
        """First column of the marks of late positions: one for each entry of `early`."""
        return self.position + 2 * self.circles

    @property
    def early(self) -> list[int]:
        """For each mark, the number of positions that are not late: `EARLY`, twice as many, and so on."""
        return [EARLY << times for times in range(max(1, (self.positions // EARLY).bit_length() - 1))]

    @property
    def inverse(self) -> int:
        """Column of one over the number of tokens so far."""
        return self.late + len(self.early)

    @property
    def still(self) -> int:
        """Column that nothing writes to. A layer norm subtracts the mean, which in half precision differs a
        little from that of the base's columns; this column then holds the difference, so that it can be
        undone."""
        return self.inverse + 1

    @property
    def balance(self) -> int:
        """Column that makes the sum of all added columns zero, so that the mean which a layer norm subtracts
        stays that of the base's columns."""
        return self.still + 1

    @property
    def total(self) -> int:
        """The larger model's `n_embd`: whole heads."""
        needed = self.balance + 1 - self.width
        return self.width + self.head_size * max(self._groups[-1], math.ceil(needed / self.head_size))

    @property
    def _groups(self) -> list[int]:
        """Number of added heads before each group, and their total.

        The groups: the mean over all tokens, the mean over the first, one token before, two tokens before.
        """
        mean, code = (math.ceil(size / self.head_size) for size in (self.features, CODE + 1))
        sizes = [mean, mean, *[code] * BEFORE]
        return [sum(sizes[:i]) for i in range(len(sizes) + 1)]

    def group(self, index: int) -> int:
        """First dimension of the values of a group of added heads, among those of all heads."""
        return self.width + self._groups[index] * self.head_size

    def heads(self, index: int) -> list[int]:
        """First dimension of the queries, keys and values of each head of a group."""
        return list(range(self.group(index), self.group(index + 1), self.head_size))

    @property
    def shrink(self) -> float:
        """Factor of a layer norm's weight that corrects for the variance over more dimensions."""
        return math.sqrt(self.width / self.total)

    def settings(self, epsilon: float) -> dict[str, Any]:
        """The changed settings of the config, for a base with this `layer_norm_epsilon`."""
        return {
            "n_embd": self.total,
            "n_head": self.total // self.head_size,
            "n_inner": self.hidden + self.neurons,
            "layer_norm_epsilon": epsilon * self.width / self.total,
            # The added columns of the embeddings must not change the logits.
            "tie_word_embeddings": False,
        }


def layout_for(config: Any, neurons: int) -> GPT2Layout:
    """The layout of a GPT-2 with room for so many neurons in each feed-forward."""
    return GPT2Layout(
        width=config.n_embd,
        hidden=config.n_inner or 4 * config.n_embd,
        head_size=config.n_embd // config.n_head,
        positions=config.n_positions,
        features=min(config.n_embd, _FEATURES),
        neurons=neurons,
        sharpness=SHARPNESS[config.activation_function],
    )


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why a GPT-2 cannot be compiled, as a clause; None if it can.

    Args:
        config: the content of its config.json.
    """
    known = GPT2Config.from_dict(dict(config))
    if known.activation_function not in SHARPNESS:
        return f"this one has {known.activation_function}"
    if known.add_cross_attention:
        return "this one has cross-attention"
    if config.get("pruned_heads"):
        return "this one has pruned heads"
    size = known.n_embd // known.n_head
    return (
        None
        if size >= _SMALLEST_HEAD
        else f"this one's heads have {size} dimensions, of {_SMALLEST_HEAD} needed"
    )
