"""Which baselines run, and with what settings: `--baseline finetune,grace --baseline-set grace.steps=50`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from melo_cli.errors import MeloError
from melo_cli.suggest import did_you_mean

# `base` is measured in every evaluation; naming it asks for nothing more.
BASELINES = ("base", "finetune", "lora", "grace")


@dataclass(frozen=True)
class FinetuneSettings:
    """Fine-tuning: the recipe's optimizer on the weights themselves, batch after batch.

    Attributes:
        lr: replaces the recipe's, which is meant for LoRA.
        steps: optimizer steps a batch at most; None is the recipe's `training.max_steps`.
        weights: `targets` trains the modules that blocks would add to, `all` every weight.
    """

    lr: float = 1e-3
    steps: int | None = None
    weights: str = "targets"


@dataclass(frozen=True)
class LoraSettings:
    """One PEFT LoRA for all edits, on the same modules with the recipe's alpha, batch after batch.

    Attributes:
        lr: replaces the recipe's, under which one adapter for all forgets all.
        steps: optimizer steps a batch at most; None is the recipe's `training.max_steps`.
        rank: None is the recipe's times the number of batches: as many parameters as all blocks together.
    """

    lr: float = 1e-3
    steps: int | None = None
    rank: int | None = None


@dataclass(frozen=True)
class GraceSettings:
    """GRACE (arXiv 2211.11031): the published optimizer (Adam, learning rate 1, 100 steps), stopped early.

    Attributes:
        radius: the first epsilon of a key; 0 takes half the median distance between an edit's key and the
            nearest with another target, since the published 1 suits only the published layers.
        layer: full name of the module whose output is replaced; empty takes the last target module that
            sees the prompt.
    """

    lr: float = 1.0
    steps: int = 100
    radius: float = 0.0
    layer: str = ""


@dataclass(frozen=True)
class BaselineSettings:
    """The settings of all baselines; each has a section of its name."""

    finetune: FinetuneSettings = FinetuneSettings()
    lora: LoraSettings = LoraSettings()
    grace: GraceSettings = GraceSettings()


def parse_baselines(names: str | None, assignments: Sequence[str]) -> tuple[list[str], BaselineSettings]:
    """Read `--baseline` and `--baseline-set`.

    Returns:
        The baselines to run beside the base, each once, and the settings.

    Raises:
        MeloError: an unknown baseline or setting, a value of the wrong kind, a setting without its baseline.
    """
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    for name in wanted:
        if name not in BASELINES:
            hint = did_you_mean(name, BASELINES) or f"known are {', '.join(BASELINES)}"
            raise MeloError(f"there is no baseline {name!r}", where="--baseline", hint=hint)
    run = [name for name in dict.fromkeys(wanted) if name != "base"]
    settings = BaselineSettings()
    for assignment in assignments:
        settings = _assigned(settings, assignment, run)
    return run, settings


def _assigned(settings: BaselineSettings, assignment: str, run: Sequence[str]) -> BaselineSettings:
    dotted, equals, value = assignment.partition("=")
    name, _, option = dotted.strip().partition(".")
    where = f"--baseline-set {assignment}"
    if not equals or name not in BASELINES or name == "base":
        raise MeloError("it is not NAME.SETTING=VALUE", where=where, hint="such as finetune.lr=1e-4")
    if name not in run:
        raise MeloError(f"the baseline {name} is not run", where=where, hint=f"add --baseline {name}")
    section = getattr(settings, name)
    kinds = {field.name: str(field.type) for field in fields(section)}
    if option not in kinds:
        hint = did_you_mean(option, kinds) or f"it has {', '.join(kinds)}"
        raise MeloError(f"{name} has no setting {option!r}", where=where, hint=hint)
    changed = replace(section, **{option: _value(kinds[option], value.strip(), option, where)})
    return replace(settings, **{name: changed})


def _value(kind: str, text: str, option: str, where: str) -> Any:
    """The text as what the field holds, checked: steps and ranks from 1, rates above 0."""
    if option == "weights":
        if text not in ("targets", "all"):
            raise MeloError("it is targets or all", where=where)
        return text
    if kind.startswith("str"):
        return text
    try:
        number = int(text) if kind.startswith("int") else float(text)
    except ValueError as error:
        raise MeloError(f"{text!r} is no number", where=where) from error
    lowest_allowed = number >= 0 if option == "radius" else number > 0
    if not lowest_allowed or number == float("inf"):
        raise MeloError(f"{text} is out of range", where=where, hint="give a number above 0")
    return number
