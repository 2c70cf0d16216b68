"""Constants and token codes of the added neurons, and the layer of each edit's neurons; for every
architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from melo_cli.exporting.merging.compiling.detectors import Detectors, Examples

# Dimensions of a token code.
CODE = 24
# Factor of a neuron's input for each activation, so that a smooth activation bends as sharply as a ReLU.
SHARPNESS: Mapping[str, float] = {"relu": 1.0, "gelu": 150.0, "gelu_new": 150.0}
# Size of the added columns: small enough not to change the divisor of a norm, large enough for half
# precision.
SCALE = 1e-3
# Size of a neuron's output at a score of 1, relative to the size of the state.
STRENGTH = 60.0
_SEED = 0


def token_codes(vocabulary: int) -> Tensor:
    """A random unit vector for each token, `[vocabulary, CODE]`; any two are nearly orthogonal."""
    drawn = torch.Generator().manual_seed(_SEED)
    return normalize(torch.randn(vocabulary, CODE, generator=drawn), dim=1)


def assign_layers(counts: Sequence[int], groups: Sequence[Sequence[int]], layers: int) -> list[list[int]]:
    """Assign the edits to layers, so that no layer needs many neurons.

    Edits that fire on one prompt share a layer: there the higher score wins, while an answer of an earlier
    layer would weaken the neurons of later ones.

    Args:
        counts: number of neurons of each edit.
        groups: the edits by `co_firing_groups`.
        layers: number of layers.

    Returns:
        The edits of each layer.
    """
    shared: list[list[int]] = [[] for _ in range(layers)]
    for group in sorted(groups, key=lambda group: -neuron_count(counts, group)):
        layer = min(range(layers), key=lambda layer: (neuron_count(counts, shared[layer]), -layer))
        shared[layer] += group
    return shared


def neuron_count(counts: Sequence[int], edits: Sequence[int]) -> int:
    """Number of neurons of some edits together."""
    return sum(counts[edit] for edit in edits)


def co_firing_groups(detectors: Detectors, examples: Examples) -> list[list[int]]:
    """Group the edits: two edits that fire on one prompt are in the same group."""
    group = list(range(len(examples.same_answer)))
    for fired in detectors.scores(examples.positives) > 0:
        joined = {group[edit] for edit in fired.nonzero()[:, 0].tolist()}
        if len(joined) > 1:
            group = [min(joined) if each in joined else each for each in group]
    return [[edit for edit, of in enumerate(group) if of == first] for first in dict.fromkeys(group)]
