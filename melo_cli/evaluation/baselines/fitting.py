"""What the baselines train with: a loop over one batch, and a loss in which edits count alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from melo_cli.editing.optimizers import Schedule
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED, EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.scoring import TargetBatch, target_batch, target_losses


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


def mean_of_rows(batch: TargetBatch, losses: Tensor) -> Tensor:
    """The mean over edits of the mean loss of an edit's target tokens.

    Args:
        batch: the edits.
        losses: `[N]`, the loss of each target token, row by row.
    """
    lengths = (batch.targets != IGNORED).sum(1)
    return (losses / lengths.repeat_interleave(lengths)).sum() / len(lengths)
