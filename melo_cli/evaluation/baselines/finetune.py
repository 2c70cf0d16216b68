"""Fine-tuning as an editor: the weights themselves move, all edits learned together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from melo_cli.evaluation.baselines.baseline import EditedModel
from melo_cli.evaluation.baselines.epochs import EpochBaseline
from melo_cli.evaluation.baselines.modules import chosen_modules, down_projection
from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject

# 22 of 32 for Llama-3-8B.
_DEPTH = 0.7


class Finetune(EpochBaseline):
    """Fine-tuning of one module, in epochs: LocFT-BF (arXiv 2509.22072).

    Known from the published code: the down projection of one block (22 of Llama-3-8B's 32, 6 of
    Qwen2.5-7B's 28), Adam at 5e-4, at most 25 epochs of mini-batches of 100 for 3,000 edits. Guessed: a late
    block in other models, and the encoder's in an encoder-decoder. The default learning rate is the best of
    5e-4, 1e-3 and 2e-3 for 16 edits of SmolLM2-135M; a large model or many edits ask for less.

    Attributes:
        weights: what is trained. `auto` is the down projection of the block seven tenths up the stack,
            `targets` the modules that blocks would add to, `all` every weight of the model; else a regular
            expression over full names of linear modules.
    """

    name: ClassVar[str] = "finetune"

    lr: float = Field(2e-3, gt=0)
    weights: str = "auto"

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        base = opened.routed.base
        weights = down_projection(base, _DEPTH, self.name) if self.weights == "auto" else self.weights
        parameters = self._parameters(opened, weights)
        before = [parameter.detach().clone() for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            taken = self.train(base, parameters, batches, opened.recipe.seed, progress)
            in_force = {"weights": weights, "epochs_taken": taken}
            stored = sum(parameter.nbytes for parameter in parameters)
            yield EditedModel(opened, self.model_dump() | in_force, stored)
        finally:
            with torch.no_grad():
                for parameter, kept in zip(parameters, before, strict=True):
                    parameter.copy_(kept)
                    parameter.grad = None
                    parameter.requires_grad_(False)

    def _parameters(self, opened: OpenProject, weights: str) -> list[nn.Parameter]:
        if weights == "all":
            return list(opened.routed.base.model.parameters())
        modules = chosen_modules(opened, weights, self.name).values()
        return [parameter for module in modules for parameter in module.parameters()]
