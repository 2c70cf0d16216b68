"""From a project to the weights of the larger GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detector_examples import make_examples
from melo_cli.exporting.merging.compiling.detectors import Examples, Fit, train_detectors
from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerTokens, answer_tokens
from melo_cli.exporting.merging.compiling.gpt2.continuations import continued
from melo_cli.exporting.merging.compiling.gpt2.false_fire_scan import false_fires
from melo_cli.exporting.merging.compiling.gpt2.layout import layout_for
from melo_cli.exporting.merging.compiling.gpt2.pooling import Pooling
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout
from melo_cli.exporting.merging.compiling.gpt2.widening import GPT2Sizes, WidenedGPT2
from melo_cli.exporting.merging.compiling.neurons import share_out, together
from melo_cli.exporting.merging.compiling.state_norms import mean_sizes
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED, EncodedEdit
from melo_cli.reporter import Reporter
from melo_cli.runtime.scoring import TargetBatch

# Prompts are long and much alike: what stays must be told apart by little, and at each of many tokens.
_FIT = Fit(ridge=0.01, steps=300, lr=0.1, quiet=-0.1, staying=60.0, hold=0.1)


def compiled_gpt2(
    base: BaseModel,
    plain: PreTrainedModel,
    training_examples: TrainingExamples,
    seed: int,
    reporter: Reporter,
) -> WidenedGPT2:
    """The base with what tells its edits' prompts, and what answers them, built around it.

    Args:
        plain: a copy of the base, float32.
    """
    learner = replace(base, model=plain)
    layout = layout_for(plain.config, 0)
    far = continued(learner, training_examples.far, reporter)
    examples = examples_of(plain, training_examples, far)
    detectors = train_detectors(examples, layout.features, seed, reporter, _FIT, means=2)
    residual = ResidualLayout(plain, layout, detectors)
    edits = edits_of(training_examples, examples.owners.tolist())
    inputs = _without_false_fires(
        residual, edits, [example.encoded.prompt_ids for example in (*training_examples.others, *far)]
    )
    counts = [len(edit.positions) for edit in edits]
    placed = share_out(counts, together(detectors, examples), plain.config.n_layer)
    sizes = _sizes(learner, training_examples.prompts)
    return WidenedGPT2(plain, residual, edits, inputs, placed, sizes)


def examples_of(
    plain: PreTrainedModel, training_examples: TrainingExamples, texts: Sequence[TrainingExample]
) -> Examples:
    """What detectors learn from.

    Args:
        texts: text that is to stay, and whose beginnings are: neurons read it at each of its tokens.
    """
    pooling = Pooling(plain)
    examples = make_examples(training_examples, pooling)
    staying = torch.stack([*examples.staying, *pooling.beginnings(texts)])
    return replace(examples, staying=staying)


def _without_false_fires(
    residual: ResidualLayout, edits: Sequence[AnswerTokens], staying: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """The inputs of each edit's neurons; those that fire out of place are narrowed."""
    inputs = [residual.neurons(edit, place) for place, edit in enumerate(edits)]
    narrow = false_fires(residual, edits, inputs, staying)
    return [residual.neurons(edit, place, narrow[place]) for place, edit in enumerate(edits)]


def edits_of(training_examples: TrainingExamples, owners: Sequence[int]) -> list[AnswerTokens]:
    """What each edit answers, and to which endings of its prompt.

    Args:
        owners: whose the prompts of `training_examples.edits` are.
    """
    wordings: list[list[EncodedEdit]] = [[] for _ in training_examples.prompts]
    for owner, example in zip(owners[len(wordings) :], training_examples.phrased, strict=True):
        # Made-up wordings end anywhere.
        if not example.made_up:
            wordings[owner].append(example.encoded)
    return [
        answer_tokens(example.encoded, known)
        for example, known in zip(training_examples.prompts, wordings, strict=True)
    ]


def _sizes(learner: BaseModel, training_examples: Sequence[TrainingExample]) -> GPT2Sizes:
    stack: Any = learner.model.get_submodule("transformer")
    norms = [stack.h[0].ln_1, *(block.ln_2 for block in stack.h), stack.ln_f]

    def counted(batch: TargetBatch) -> list[Tensor]:
        # Of the places where answers are read: the last of a batch that is padded on the left.
        known = batch.targets != IGNORED
        ids = batch.inputs["input_ids"]
        assert isinstance(ids, Tensor)
        whole = torch.zeros_like(ids, dtype=torch.bool)
        whole[:, -known.shape[1] :] = known
        return [whole] * len(norms)

    means = mean_sizes(learner, training_examples, norms, lambda state: state.std(-1, correction=0), counted)
    return GPT2Sizes(means[0], tuple(means[1:-1]), means[-1])
