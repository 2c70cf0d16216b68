"""Compiles a project into the weights of a larger T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.detector_examples import make_examples
from melo_cli.exporting.merging.compiling.detectors import train_detectors
from melo_cli.exporting.merging.compiling.neurons import assign_layers, co_firing_groups, neuron_count
from melo_cli.exporting.merging.compiling.state_norms import mean_sizes
from melo_cli.exporting.merging.compiling.t5.layout import layout_for
from melo_cli.exporting.merging.compiling.t5.widening import T5Sizes, WidenedT5
from melo_cli.exporting.merging.compiling.widened_weights import Widened
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED
from melo_cli.reporter import Reporter
from melo_cli.runtime.scoring import TargetBatch


def compiled_t5(
    base: BaseModel,
    base_copy: PreTrainedModel,
    training_examples: TrainingExamples,
    seed: int,
    reporter: Reporter,
) -> Widened:
    """Compile the edits into a larger T5: detectors of their prompts, and neurons that write their answers.

    Args:
        base: the base model.
        base_copy: a copy of its model, float32.
        training_examples: what detectors learn from, and what edits answer.
        seed: seed of the detectors' batches.
        reporter: shows progress.
    """
    answers = [example.encoded.target_ids for example in training_examples.prompts]
    examples = make_examples(training_examples, _Pooling(base_copy))
    features = layout_for(base_copy.config, 0).features
    detectors = train_detectors(examples, features, seed, reporter)
    counts = [len(answer) for answer in answers]
    placed = assign_layers(counts, co_firing_groups(detectors, examples), len(base_copy.get_decoder().block))
    layout = layout_for(base_copy.config, max(neuron_count(counts, edits) for edits in placed))
    sizes = _sizes(replace(base, model=base_copy), training_examples.prompts)
    return WidenedT5(base_copy, layout, detectors, answers, placed, sizes)


class _Pooling:
    """The mean, over each prompt's tokens, of the input of the encoder's first attention layer."""

    @torch.no_grad()
    def __init__(self, base_copy: PreTrainedModel) -> None:
        encoder: Any = base_copy.get_encoder()
        self._words: Tensor = encoder.block[0].layer[0].layer_norm(encoder.embed_tokens.weight).float().cpu()

    def __call__(self, training_examples: Sequence[TrainingExample]) -> Tensor:
        return torch.stack(
            [self._words[list(example.encoded.prompt_ids)].mean(0) for example in training_examples]
        )


def _sizes(learner: BaseModel, training_examples: Sequence[TrainingExample]) -> T5Sizes:
    encoder: Any = learner.model.get_encoder()
    decoder: Any = learner.model.get_decoder()
    norms = [
        encoder.final_layer_norm,
        *(block.layer[2].layer_norm for block in decoder.block),
        decoder.final_layer_norm,
    ]

    def counted(batch: TargetBatch) -> list[Tensor]:
        real = batch.inputs["attention_mask"]
        assert isinstance(real, Tensor)
        return [real.bool(), *[batch.targets != IGNORED] * (len(norms) - 1)]

    means = mean_sizes(learner, training_examples, norms, lambda state: state.pow(2).mean(-1).sqrt(), counted)
    return T5Sizes(means[0], tuple(means[1:-1]), means[-1])
