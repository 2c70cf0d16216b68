"""Mean sizes of the base's states at the inputs of its norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.exporting.merging.training_examples import TrainingExample, batches
from melo_cli.models.base_model import BaseModel
from melo_cli.runtime.scoring import TargetBatch, target_batch


@torch.no_grad()
def mean_sizes(
    learner: BaseModel,
    training_examples: Sequence[TrainingExample],
    norms: Sequence[nn.Module],
    size: Callable[[Tensor], Tensor],
    counted: Callable[[TargetBatch], Sequence[Tensor]],
) -> list[float]:
    """The mean size of each norm's input while the model reads the training examples with their answers.

    Args:
        learner: the base, with an unwrapped copy of its model.
        training_examples: prompts with answers.
        norms: modules of the model.
        size: the divisor of a norm for a state `[..., d]`.
        counted: for each norm, a mask of the positions of a batch that count.
    """
    sizes: list[list[Tensor]] = [[] for _ in norms]
    for group in batches(training_examples):
        batch = target_batch(learner, [example.encoded for example in group])
        with _captured_inputs(norms) as states:
            learner.model(**batch.inputs)
        for i, (state, mask) in enumerate(zip(states, counted(batch), strict=True)):
            sizes[i].append(size(state.float())[mask.to(state.device)])
    return [torch.cat(each).mean().item() for each in sizes]


@contextmanager
def _captured_inputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The input of each module; filled when the modules run."""
    states: list[Tensor] = [torch.empty(0)] * len(modules)

    def capture(i: int) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(_module: Any, arguments: tuple[Tensor, ...]) -> None:
            states[i] = arguments[0]

        return hook

    handles = [module.register_forward_pre_hook(capture(i)) for i, module in enumerate(modules)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
