"""What detectors learn from, of a project's lessons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from melo_cli.exporting.merging.compiling.detectors import Examples, alike
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples

# Mean embeddings `[training_examples, d]` of their prompts.
Pooled = Callable[[Sequence[TrainingExample]], Tensor]


def make_examples(training_examples: TrainingExamples, pooled: Pooled) -> Examples:
    """The mean embeddings of the lessons' prompts, and whose they are."""
    own = pooled(training_examples.prompts)
    phrased = pooled(training_examples.phrased) if training_examples.phrased else own[:0]
    owners = list(range(len(own)))
    owners += [
        _owner(example, training_examples.prompts, own, row)
        for example, row in zip(training_examples.phrased, phrased, strict=True)
    ]
    targets = [example.encoded.target_ids for example in training_examples.prompts]
    firing = torch.cat([own, phrased])
    return Examples(firing, torch.tensor(owners), pooled(training_examples.others), alike(targets))


def _owner(example: TrainingExample, prompts: Sequence[TrainingExample], own: Tensor, row: Tensor) -> int:
    """Of the edits of one block, those that have a wording's answer before others, the nearest."""
    block = [place for place, other in enumerate(prompts) if other.block == example.block]
    # After another wording an answer may be of other tokens.
    mine = [place for place in block if prompts[place].encoded.target_ids == example.encoded.target_ids]
    return min(mine or block, key=lambda place: float((own[place] - row).norm()))
