"""Fine-tuning as an editor: every batch moves the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import nn

from melo_cli.evaluation.baselines.fitting import EditedModel, fit, with_changes
from melo_cli.evaluation.baselines.settings import FinetuneSettings
from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject


@contextmanager
def finetuned(
    opened: OpenProject,
    batches: Sequence[Sequence[EncodedEdit]],
    settings: FinetuneSettings,
    progress: Progress,
) -> Iterator[EditedModel]:
    """Inside the block the base model is fine-tuned on the batches, in order; afterwards it is as before."""
    base = opened.routed.base
    parameters = _parameters(opened, settings.weights)
    before = [parameter.detach().clone() for parameter in parameters]
    training = with_changes(opened.recipe.training, lr=settings.lr, steps=settings.steps)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for batch in batches:
            fit(base, parameters, batch, training)
            progress.advance(len(batch))
        yield EditedModel(opened, asdict(settings) | {"steps": training.max_steps})
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
