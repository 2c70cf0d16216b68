"""Optimizers and learning-rate schedulers by their PyTorch names, as a recipe gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from melo_cli.errors import RecipeError
from melo_cli.recipe import OptimizerSection, SchedulerSection, TrainingSection
from melo_cli.suggest import did_you_mean

# They take functions or other schedulers, which a YAML file cannot hold.
_NOT_FROM_YAML = {"LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}


class Schedule:
    """An optimizer and its scheduler, stepped together once a training step."""

    def __init__(self, section: TrainingSection, parameters: Sequence[Tensor]) -> None:
        self.optimizer = build_optimizer(section.optimizer, parameters)
        self._scheduler = (
            build_scheduler(section.lr_scheduler, self.optimizer)
            if section.lr_scheduler is not None
            else None
        )

    def step(self, loss: float) -> None:
        """Move the parameters by their gradients, then the learning rate.

        Args:
            loss: the mean loss of the step; `ReduceLROnPlateau` lowers the learning rate by it.
        """
        self.optimizer.step()
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)
        elif self._scheduler is not None:
            self._scheduler.step()


def check_training_section(section: TrainingSection) -> None:
    """Build optimizer and scheduler on a dummy parameter, so that a wrong name or argument shows at once.

    Args:
        section: `training` of a recipe.

    Raises:
        RecipeError: there is no such class, or it does not take these arguments.
    """
    Schedule(section, [torch.zeros(1, requires_grad=True)])


def build_optimizer(section: OptimizerSection, parameters: Sequence[Tensor]) -> Optimizer:
    """The class of `torch.optim` that a recipe names, over `parameters`.

    Raises:
        RecipeError: there is no such class, or it does not take these arguments.
    """
    optimizer: Optimizer = _build("training.optimizer", section, _classes(torch.optim, Optimizer), parameters)
    return optimizer


def build_scheduler(section: SchedulerSection, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau:
    """The class of `torch.optim.lr_scheduler` that a recipe names, over `optimizer`.

    Raises:
        RecipeError: there is no such class, or it does not take these arguments.
    """
    classes = _classes(lr_scheduler, LRScheduler)
    usable = {name: cls for name, cls in classes.items() if name not in _NOT_FROM_YAML}
    built: LRScheduler | ReduceLROnPlateau = _build("training.lr_scheduler", section, usable, optimizer)
    return built


def _classes(module: Any, root: type) -> dict[str, type]:
    members = inspect.getmembers(module, inspect.isclass)
    return {name: cls for name, cls in members if issubclass(cls, root) and cls is not root}


def _build(
    where: str, section: OptimizerSection | SchedulerSection, classes: Mapping[str, type], subject: Any
) -> Any:
    if section.name not in classes:
        known = did_you_mean(section.name, classes) or f"known are {', '.join(sorted(classes))}"
        raise RecipeError(
            f"{section.name} is not a class of PyTorch that a recipe can use",
            where=f"{where}.name",
            hint=known,
        )
    try:
        return classes[section.name](subject, **section.arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{section.name} does not take these arguments ({error})", where=where) from error
