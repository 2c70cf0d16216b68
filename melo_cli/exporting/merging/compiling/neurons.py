"""What the neurons of every architecture have in common, and who stands in which layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from melo_cli.exporting.merging.compiling.detectors import Detectors, Examples

# Dimensions in which tokens are told apart.
CODE = 24
# How much steeper than a ReLU's a smooth neuron's input is made, so that it bends as sharply.
SHARPNESS: Mapping[str, float] = {"relu": 1.0, "gelu": 150.0, "gelu_new": 150.0}
# Size of what is added beside the embeddings: small enough to leave what a norm divides by as it is, and
# large enough for half precision.
SCALE = 1e-3
# How much stronger than the state a score of 1 answers.
STRENGTH = 60.0
_SEED = 0


def token_codes(vocabulary: int) -> Tensor:
    """A direction `[vocabulary, CODE]` for each token; those of two are far apart."""
    drawn = torch.Generator().manual_seed(_SEED)
    return normalize(torch.randn(vocabulary, CODE, generator=drawn), dim=1)


def share_out(counts: Sequence[int], groups: Sequence[Sequence[int]], layers: int) -> list[list[int]]:
    """The edits of each layer, so that no layer needs many neurons.

    Edits that fire together stand in one layer: an answer makes later layers' neurons weaker, and only beside
    each other the higher score wins.

    Args:
        counts: neurons of each edit.
    """
    shared: list[list[int]] = [[] for _ in range(layers)]
    for group in sorted(groups, key=lambda group: -neurons_of(counts, group)):
        layer = min(range(layers), key=lambda layer: (neurons_of(counts, shared[layer]), -layer))
        shared[layer] += group
    return shared


def neurons_of(counts: Sequence[int], edits: Sequence[int]) -> int:
    """How many neurons some edits have together."""
    return sum(counts[edit] for edit in edits)


def together(detectors: Detectors, examples: Examples) -> list[list[int]]:
    """The edits in groups: two that fire on one prompt are in the same."""
    group = list(range(len(examples.alike)))
    for fired in detectors.scores(examples.firing) > 0:
        found = {group[edit] for edit in fired.nonzero()[:, 0].tolist()}
        if len(found) > 1:
            group = [min(found) if each in found else each for each in group]
    return [[edit for edit, of in enumerate(group) if of == first] for first in dict.fromkeys(group)]
