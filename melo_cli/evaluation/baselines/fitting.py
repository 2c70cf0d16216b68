"""What the baselines share: the training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from melo_cli.editing.optimizers import Schedule
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.scoring import target_batch, target_losses


def fit(
    base: BaseModel, parameters: Sequence[Tensor], edits: Sequence[EncodedEdit], training: TrainingSection
) -> int:
    """Train `parameters` until the model answers a batch of edits, with a fresh optimizer.

    Args:
        base: the model; its forward pass must depend on `parameters`.
        parameters: what is trained, in place.
        edits: the batch.
        training: steps, optimizer and scheduler, and the probability to stop at.

    Returns:
        The steps that it took, `training.max_steps` at most.
    """
    schedule = Schedule(training, parameters)
    batch = target_batch(base, edits)
    for step in range(training.max_steps):
        losses = target_losses(base, batch)
        if training.stop_at is not None and math.exp(-losses.max().item()) >= training.stop_at:
            return step
        schedule.optimizer.zero_grad(set_to_none=True)
        loss = losses.mean()
        loss.backward()
        schedule.step(loss.item())
    return training.max_steps


def with_changes(training: TrainingSection, *, lr: float | None, steps: int | None) -> TrainingSection:
    """The recipe's training with another learning rate or number of steps, where given."""
    changes: dict[str, Any] = {}
    if steps is not None:
        changes["max_steps"] = steps
    if lr is not None:
        named = {"name": training.optimizer.name, **training.optimizer.arguments, "lr": lr}
        changes["optimizer"] = type(training.optimizer).model_validate(named)
    return training.model_copy(update=changes)
