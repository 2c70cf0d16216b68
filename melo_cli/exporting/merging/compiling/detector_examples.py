"""Turns training examples into the mean embeddings that detectors learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from melo_cli.exporting.merging.compiling.detectors import Examples, same_answer
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples

# Mean embeddings `[training_examples, d]` of their prompts.
Pooled = Callable[[Sequence[TrainingExample]], Tensor]


def make_examples(training_examples: TrainingExamples, pooled: Pooled) -> Examples:
    """The mean embeddings of the examples' prompts, and the edit that each belongs to.

    Args:
        training_examples: prompts of edits, and prompts that no edit answers.
        pooled: computes mean embeddings.
    """
    own = pooled(training_examples.prompts)
    phrased = pooled(training_examples.phrased) if training_examples.phrased else own[:0]
    owners = list(range(len(own)))
    owners += [
        _owner(example, training_examples.prompts, own, row)
        for example, row in zip(training_examples.phrased, phrased, strict=True)
    ]
    targets = [example.encoded.target_ids for example in training_examples.prompts]
    positives = torch.cat([own, phrased])
    return Examples(positives, torch.tensor(owners), pooled(training_examples.others), same_answer(targets))


def _owner(example: TrainingExample, prompts: Sequence[TrainingExample], own: Tensor, row: Tensor) -> int:
    """The nearest edit of a variant's block; edits with the same answer come first."""
    block = [i for i, other in enumerate(prompts) if other.block == example.block]
    # After a variant, the same answer may consist of other tokens.
    same = [i for i in block if prompts[i].encoded.target_ids == example.encoded.target_ids]
    return min(same or block, key=lambda i: float((own[i] - row).norm()))
