"""The base model's continuations of unrelated text: more negatives, in which no neuron may fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from melo_cli.exporting.merging.even_sample import even_sample
from melo_cli.exporting.merging.training_examples import TrainingExample, batches
from melo_cli.models.base_model import BaseModel
from melo_cli.reporter import Reporter
from melo_cli.runtime.greedy import room_after, write_greedily

_TOKENS = 64
# Texts at most.
_MOST = 1000


def continued(
    base: BaseModel, training_examples: Sequence[TrainingExample], reporter: Reporter
) -> list[TrainingExample]:
    """The training examples with the base model's greedy answer appended to each prompt.

    Args:
        base: the base model, with an unwrapped copy of its model.
        training_examples: unrelated text; an even sample of it is continued.
        reporter: shows progress.
    """
    chosen = even_sample(training_examples, _MOST)
    longer: list[TrainingExample] = []
    with reporter.progress("reading on", len(chosen), "prompts") as progress:
        for rows in batches(chosen):
            longer += _longer(base, rows)
            progress.advance(len(rows))
    return longer


def _longer(base: BaseModel, training_examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    prompts = [example.encoded.prompt_ids for example in training_examples]
    # The model reads all of it again, the last token too.
    room = min(_TOKENS, room_after(base, max(map(len, prompts))) - 1)
    if room < 1:
        return list(training_examples)
    return [
        replace(example, encoded=replace(example.encoded, prompt_ids=(*prompt, *written)))
        for example, prompt, written in zip(
            training_examples, prompts, write_greedily(base, prompts, room), strict=True
        )
    ]
