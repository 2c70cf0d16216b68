"""Fine-tuning as an editor: every batch moves the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from melo_cli.evaluation.baselines.baseline import Baseline, EditedModel
from melo_cli.evaluation.baselines.fitting import fit, with_changes
from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject


class Finetune(Baseline):
    """Fine-tuning: the recipe's optimizer on the weights themselves, batch after batch.

    Attributes:
        lr: replaces the recipe's, which is meant for LoRA.
        steps: optimizer steps a batch at most; None is the recipe's `training.max_steps`.
        weights: `targets` trains the modules that blocks would add to, `all` every weight.
    """

    name: ClassVar[str] = "finetune"

    lr: float = Field(1e-3, gt=0)
    steps: int | None = Field(None, gt=0)
    weights: Literal["targets", "all"] = "targets"

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        base = opened.routed.base
        parameters = _parameters(opened, self.weights)
        before = [parameter.detach().clone() for parameter in parameters]
        training = with_changes(opened.recipe.training, lr=self.lr, steps=self.steps)
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for batch in batches:
                fit(base, parameters, batch, training)
                progress.advance(len(batch))
            yield EditedModel(opened, self.model_dump() | {"steps": training.max_steps})
        finally:
            with torch.no_grad():
                for parameter, kept in zip(parameters, before, strict=True):
                    parameter.copy_(kept)
                    parameter.grad = None
                    parameter.requires_grad_(False)


def _parameters(opened: OpenProject, weights: str) -> list[nn.Parameter]:
    if weights == "all":
        return list(opened.routed.base.model.parameters())
    layers = opened.routed.tuner.layers.values()
    return [parameter for layer in layers for parameter in layer.base_layer.parameters()]
