"""Which GPT-2 models can be compiled, and where in the larger one stands what is added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GPT2Config

from melo_cli.exporting.merging.compiling.neurons import CODE, SHARPNESS

# Of each mean of a prompt's embeddings, so many features at most are kept.
_FEATURES = 64
# The second mean is of the first tokens alone: a name at the beginning of a long prompt weighs enough there.
EARLY = 16
# How many tokens before the present one a neuron knows.
BEFORE = 2
# Circles on which positions are told apart, at most; a head needs two dimensions for each, and one more.
_CIRCLES = 16
_SMALLEST_HEAD = 8


@dataclass(frozen=True)
class GPT2Layout:
    """Sizes of the base and of the larger model, and the columns of what is added.

    Attributes:
        width, hidden: the base's `n_embd` and inner size of a feed-forward: what is added comes after.
        features: of each of the two means, that detectors read.
        neurons: that are added to each feed-forward.
        sharpness: by which a neuron's input is multiplied; 1 for a ReLU.
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
        """On how many circles positions are told apart."""
        return min(_CIRCLES, (self.head_size - 1) // 2)

    @property
    def means(self) -> int:
        """First column of the features of the mean of all tokens, then of that of the first."""
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
        """First column of the points that stand for the position."""
        return self.before(BEFORE + 1)

    @property
    def late(self) -> int:
        """First of the columns that each mark all positions but the first so many, see `early`."""
        return self.position + 2 * self.circles

    @property
    def early(self) -> list[int]:
        """How many positions are not late: `EARLY`, twice as many, and so on."""
        return [EARLY << times for times in range(max(1, (self.positions // EARLY).bit_length() - 1))]

    @property
    def inverse(self) -> int:
        """Column of one over the number of tokens so far."""
        return self.late + len(self.early)

    @property
    def still(self) -> int:
        """Column that nothing is written to. A layer norm takes off the mean, which in half precision is not
        quite that of the base's columns: what it leaves here is what it has taken from all the others."""
        return self.inverse + 1

    @property
    def balance(self) -> int:
        """Column of what makes the sum of all that is added zero: the mean that a layer norm takes off stays
        that of the base's columns."""
        return self.still + 1

    @property
    def total(self) -> int:
        """The larger model's `n_embd`: whole heads."""
        needed = self.balance + 1 - self.width
        return self.width + self.head_size * max(self._groups[-1], math.ceil(needed / self.head_size))

    @property
    def _groups(self) -> list[int]:
        """Heads before each group of them, and in all: all tokens, the first ones, one before, two before."""
        mean, code = (math.ceil(size / self.head_size) for size in (self.features, CODE + 1))
        sizes = [mean, mean, *[code] * BEFORE]
        return [sum(sizes[:place]) for place in range(len(sizes) + 1)]

    def group(self, place: int) -> int:
        """Where the values of a group of added heads begin, among those of all heads."""
        return self.width + self._groups[place] * self.head_size

    def heads(self, place: int) -> list[int]:
        """Where the queries, keys and values of each head of a group begin."""
        return list(range(self.group(place), self.group(place + 1), self.head_size))

    @property
    def shrink(self) -> float:
        """What makes up, in a layer norm's weight, for the variance over more dimensions."""
        return math.sqrt(self.width / self.total)

    def settings(self, epsilon: float) -> dict[str, Any]:
        """What changes in the config of a base with this `layer_norm_epsilon`."""
        return {
            "n_embd": self.total,
            "n_head": self.total // self.head_size,
            "n_inner": self.hidden + self.neurons,
            "layer_norm_epsilon": epsilon * self.width / self.total,
            # What is added to the embeddings is nothing to be said.
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
    """What of a GPT-2 the added parts do not fit; None where they fit.

    Args:
        config: of its config.json.
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
