"""One ordinary LoRA (PEFT) for all edits: what blocks of their own and a router are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from transformers.pytorch_utils import Conv1D

from melo_cli.evaluation.baselines.baseline import Baseline, EditedModel
from melo_cli.evaluation.baselines.fitting import fit, with_changes
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import Recipe
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject


class Lora(Baseline):
    """One PEFT LoRA for all edits, on the same modules with the recipe's alpha, batch after batch.

    Attributes:
        lr: replaces the recipe's, under which one adapter for all forgets all.
        steps: optimizer steps a batch at most; None is the recipe's `training.max_steps`.
        rank: None is the recipe's times the number of batches: as many parameters as all blocks together.
    """

    name: ClassVar[str] = "lora"

    lr: float = Field(1e-3, gt=0)
    steps: int | None = Field(None, gt=0)
    rank: int | None = Field(None, gt=0)

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        base, recipe = opened.routed.base, opened.recipe
        wrapped = list(opened.routed.tuner.layers.values())
        bare = [layer.base_layer for layer in wrapped]
        rank = self.rank or _rank_of_all_blocks(opened, len(batches))
        adapted = _adapted(bare, rank, recipe).to(opened.routed.device)
        parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        training = with_changes(recipe.training, lr=self.lr, steps=self.steps)
        try:
            for layer, module in zip(wrapped, adapted, strict=True):
                layer.base_layer = module
            for batch in batches:
                fit(base, parameters, batch, training)
                progress.advance(len(batch))
            in_force = {"lr": self.lr, "steps": training.max_steps, "rank": rank}
            yield EditedModel(opened, in_force)
        finally:
            for layer, module in zip(wrapped, bare, strict=True):
                layer.base_layer = module


def _rank_of_all_blocks(opened: OpenProject, batches: int) -> int:
    """The rank with as many parameters as all blocks together, no more than a module can use."""
    sizes = [min(layer.in_features, layer.out_features) for layer in opened.routed.tuner.layers.values()]
    return min(opened.recipe.lora.rank * max(batches, 1), *sizes)


def _adapted(modules: Sequence[nn.Module], rank: int, recipe: Recipe) -> nn.ModuleList:
    """The modules, which stay as they are, inside PEFT's LoRA layers; started from the recipe's seed."""
    # Half a second that an evaluation without this baseline does not have to spend.
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    held = nn.ModuleList(modules)
    names = [str(number) for number in range(len(modules))]
    alpha: Any = recipe.lora.alpha  # declared whole, but only divided by the rank
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=names,
        fan_in_fan_out=isinstance(modules[0], Conv1D),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        LoraModel(held, config, "baseline")
    return held
