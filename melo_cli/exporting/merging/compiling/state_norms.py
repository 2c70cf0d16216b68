"""How large a base's states are where its norms read them."""

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
    """The mean size of what each norm is given while the model reads the lessons with their answers.

    Args:
        size: what a norm divides a state `[..., d]` by.
        counted: which positions of a batch count, for each norm.
    """
    found: list[list[Tensor]] = [[] for _ in norms]
    for group in batches(training_examples):
        batch = target_batch(learner, [example.encoded for example in group])
        with _caught(norms) as states:
            learner.model(**batch.inputs)
        for place, (state, mask) in enumerate(zip(states, counted(batch), strict=True)):
            found[place].append(size(state.float())[mask.to(state.device)])
    return [torch.cat(each).mean().item() for each in found]


@contextmanager
def _caught(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What each module is given, once they have run."""
    states: list[Tensor] = [torch.empty(0)] * len(modules)

    def catch(place: int) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(_module: Any, arguments: tuple[Tensor, ...]) -> None:
            states[place] = arguments[0]

        return hook

    handles = [module.register_forward_pre_hook(catch(place)) for place, module in enumerate(modules)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
