"""One ordinary LoRA (PEFT) for all edits: what blocks of their own and a router are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from transformers.pytorch_utils import Conv1D

from melo_cli.evaluation.baselines.baseline import EditedModel
from melo_cli.evaluation.baselines.epochs import EpochBaseline
from melo_cli.evaluation.baselines.modules import chosen_modules
from melo_cli.models.encoding import EncodedEdit
from melo_cli.models.linear_layers import linear_shape
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject


class Lora(EpochBaseline):
    """One PEFT LoRA for all edits, trained in epochs as `finetune` is.

    The default learning rate is the best of 5e-4, 1e-3 and 3e-3 for 16 edits of SmolLM2-135M.

    Attributes:
        weights: where it sits. `targets` are the modules that blocks would add to, `all` every linear module
            but the output head; else a regular expression over full names.
        rank: None is the recipe's times the number of batches: as many parameters as all blocks together.
        alpha: numerator of the scale `alpha / rank`; None is twice the rank.
    """

    name: ClassVar[str] = "lora"

    lr: float = Field(3e-3, gt=0)
    weights: str = "targets"
    rank: int | None = Field(None, gt=0)
    alpha: float | None = Field(None, gt=0)

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        base, seed = opened.routed.base, opened.recipe.seed
        bare = list(chosen_modules(opened, self.weights, self.name).values())
        rank = self.rank or _rank_of_all_blocks(bare, opened.recipe.lora.rank * max(len(batches), 1))
        alpha = self.alpha or 2.0 * rank
        places = [_place(base.model, module) for module in bare]
        adapted = _adapted(bare, rank, alpha, seed).to(opened.routed.device)
        parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        try:
            for (parent, child), module in zip(places, adapted, strict=True):
                setattr(parent, child, module)
            taken = self.train(base, parameters, batches, seed, progress)
            in_force = {"rank": rank, "alpha": alpha, "epochs_taken": taken}
            stored = sum(parameter.nbytes for parameter in parameters)
            yield EditedModel(opened, self.model_dump() | in_force, stored)
        finally:
            for (parent, child), module in zip(places, bare, strict=True):
                setattr(parent, child, module)


def _rank_of_all_blocks(modules: Sequence[nn.Module], rank: int) -> int:
    """The rank with as many parameters as all blocks together, no more than a module can use."""
    return min(rank, *(min(linear_shape(module)) for module in modules))


def _place(model: nn.Module, module: nn.Module) -> tuple[nn.Module, str]:
    """What holds a module, and the name it holds it by."""
    name = next(name for name, other in model.named_modules() if other is module)
    parent, _, child = name.rpartition(".")
    return model.get_submodule(parent), child


def _adapted(modules: Sequence[nn.Module], rank: int, alpha: float, seed: int) -> nn.ModuleList:
    """The modules, which stay as they are, inside PEFT's LoRA layers; started from the recipe's seed."""
    # Half a second that an evaluation without this baseline does not have to spend.
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    held = nn.ModuleList(modules)
    names = [str(number) for number in range(len(modules))]
    numerator: Any = alpha  # declared whole, but only divided by the rank
    config = LoraConfig(
        r=rank,
        lora_alpha=numerator,
        target_modules=names,
        fan_in_fan_out=isinstance(modules[0], Conv1D),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(held, config, "baseline")
    return held
