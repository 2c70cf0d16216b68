"""Compiles a project into the weights of a larger GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detector_examples import make_examples
from melo_cli.exporting.merging.compiling.detectors import Examples, FitSettings, train_detectors
from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerTokens, answer_tokens
from melo_cli.exporting.merging.compiling.gpt2.continuations import continued
from melo_cli.exporting.merging.compiling.gpt2.false_fire_scan import false_fires
from melo_cli.exporting.merging.compiling.gpt2.layout import layout_for
from melo_cli.exporting.merging.compiling.gpt2.pooling import Pooling
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout
from melo_cli.exporting.merging.compiling.gpt2.widening import GPT2Sizes, WidenedGPT2
from melo_cli.exporting.merging.compiling.neurons import assign_layers, co_firing_groups
from melo_cli.exporting.merging.compiling.state_norms import mean_sizes
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED, EncodedEdit
from melo_cli.reporter import Reporter
from melo_cli.runtime.scoring import TargetBatch

# Prompts are long and similar, and a detector reads each of their many tokens: negatives need more weight.
_FIT = FitSettings(
    ridge=0.01, steps=300, lr=0.1, negative_score=-0.1, negative_weight=60.0, drift_penalty=0.1
)


def compiled_gpt2(
    base: BaseModel,
    base_copy: PreTrainedModel,
    training_examples: TrainingExamples,
    seed: int,
    reporter: Reporter,
) -> WidenedGPT2:
    """Compile the edits into a larger GPT-2: detectors of their prompts, and neurons that write their
    answers.

    Args:
        base: the base model.
        base_copy: a copy of its model, float32.
        training_examples: what detectors learn from, and what edits answer.
        seed: seed of the detectors' batches.
        reporter: shows progress.
    """
    learner = replace(base, model=base_copy)
    layout = layout_for(base_copy.config, 0)
    far = continued(learner, training_examples.far, reporter)
    examples = examples_of(base_copy, training_examples, far)
    detectors = train_detectors(examples, layout.features, seed, reporter, _FIT, means=2)
    residual = ResidualLayout(base_copy, layout, detectors)
    edits = edits_of(training_examples, examples.owners.tolist())
    inputs = _without_false_fires(
        residual, edits, [example.encoded.prompt_ids for example in (*training_examples.others, *far)]
    )
    counts = [len(edit.positions) for edit in edits]
    placed = assign_layers(counts, co_firing_groups(detectors, examples), base_copy.config.n_layer)
    sizes = _sizes(learner, training_examples.prompts)
    return WidenedGPT2(base_copy, residual, edits, inputs, placed, sizes)


def examples_of(
    base_copy: PreTrainedModel, training_examples: TrainingExamples, texts: Sequence[TrainingExample]
) -> Examples:
    """What detectors learn from.

    Args:
        texts: unrelated text. All its beginnings are negatives, since neurons read it at each of its tokens.
    """
    pooling = Pooling(base_copy)
    examples = make_examples(training_examples, pooling)
    negatives = torch.stack([*examples.negatives, *pooling.beginnings(texts)])
    return replace(examples, negatives=negatives)


def _without_false_fires(
    residual: ResidualLayout, edits: Sequence[AnswerTokens], negatives: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """The input weights of each edit's neurons; a neuron with false fires is tied to its position."""
    inputs = [residual.neurons(edit, i) for i, edit in enumerate(edits)]
    narrow = false_fires(residual, edits, inputs, negatives)
    return [residual.neurons(edit, i, narrow[i]) for i, edit in enumerate(edits)]


def edits_of(training_examples: TrainingExamples, owners: Sequence[int]) -> list[AnswerTokens]:
    """The answer tokens of each edit, after its prompt and after its known variants.

    Args:
        training_examples: holds the edits' prompts and their variants.
        owners: for each of `training_examples.edits`, the edit that it belongs to.
    """
    variants: list[list[EncodedEdit]] = [[] for _ in training_examples.prompts]
    for owner, example in zip(owners[len(variants) :], training_examples.phrased, strict=True):
        # Paraphrases that melo made end anywhere.
        if not example.made_up:
            variants[owner].append(example.encoded)
    return [
        answer_tokens(example.encoded, known)
        for example, known in zip(training_examples.prompts, variants, strict=True)
    ]


def _sizes(learner: BaseModel, training_examples: Sequence[TrainingExample]) -> GPT2Sizes:
    stack: Any = learner.model.get_submodule("transformer")
    norms = [stack.h[0].ln_1, *(block.ln_2 for block in stack.h), stack.ln_f]

    def counted(batch: TargetBatch) -> list[Tensor]:
        # Count the positions where answers are read: the last ones of a batch that is padded on the left.
        known = batch.targets != IGNORED
        ids = batch.inputs["input_ids"]
        assert isinstance(ids, Tensor)
        whole = torch.zeros_like(ids, dtype=torch.bool)
        whole[:, -known.shape[1] :] = known
        return [whole] * len(norms)

    means = mean_sizes(learner, training_examples, norms, lambda state: state.std(-1, correction=0), counted)
    return GPT2Sizes(means[0], tuple(means[1:-1]), means[-1])
