"""Which modules of a project's base model another editor changes."""

from __future__ import annotations

import re
from typing import TypeAlias

from torch import nn
from transformers.pytorch_utils import Conv1D

from melo_cli.errors import MeloError
from melo_cli.models.architecture import names_of_blocks
from melo_cli.models.base_model import BaseModel
from melo_cli.models.linear_layers import linear_shape
from melo_cli.runtime.loading import OpenProject

Linear: TypeAlias = nn.Linear | Conv1D
"""A module that editors change: `y = W x + b`; a Conv1D holds `W` transposed."""

# What a target module is called inside the layer that wraps it.
_WRAPPED = ".base_layer"
_ATTENDS = re.compile("att(entio)?n", re.IGNORECASE)


def linear_modules(base: BaseModel) -> dict[str, Linear]:
    """The linear modules but the output head, by the full names that they have before they are wrapped."""
    head = base.model.get_output_embeddings()
    return {
        name.removesuffix(_WRAPPED): module
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def chosen_modules(opened: OpenProject, weights: str, baseline: str) -> dict[str, Linear]:
    """The linear modules that a baseline's setting `weights` means, by full name.

    Args:
        opened: the project.
        weights: `targets` for those that blocks would add to, `all`, or a regular expression over full names,
            as `lora.target_modules` takes it.
        baseline: whose setting it is.

    Raises:
        MeloError: the setting names no linear module.
    """
    modules = linear_modules(opened.routed.base)
    if weights == "all":
        return modules
    if weights == "targets":
        return {name: modules[name] for name in opened.routed.tuner.layers}
    try:
        chosen = {name: module for name, module in modules.items() if re.fullmatch(weights, name)}
    except re.error as error:
        raise _not_chosen(baseline, f"{weights!r} is not a regular expression ({error})") from error
    if not chosen:
        raise _not_chosen(baseline, f"{weights!r} names no linear module of the model")
    return chosen


def one_module(opened: OpenProject, weights: str, baseline: str) -> tuple[str, Linear]:
    """The one linear module that the setting `weights` of a baseline means, with its full name.

    Raises:
        MeloError: the setting names none, or several.
    """
    chosen = chosen_modules(opened, weights, baseline)
    if len(chosen) > 1:
        raise _not_chosen(baseline, f"{weights!r} names {len(chosen)} modules, but {baseline} changes one")
    return next(iter(chosen.items()))


def down_projection(base: BaseModel, depth: float, baseline: str) -> str:
    """Full name of the module that closes the feed-forward of one block of the stack that reads the prompt.

    Args:
        base: the base model.
        depth: which block: 0 is the first, 1 the last.
        baseline: who changes it.

    Raises:
        MeloError: the block has no such module.
    """
    blocks = next(iter(names_of_blocks(base.model)), [])
    block = blocks[round(depth * (len(blocks) - 1))] if blocks else "none"
    inside = {name: module for name, module in linear_modules(base).items() if name.startswith(f"{block}.")}
    closing = [
        name
        for name, module in inside.items()
        if not _ATTENDS.search(name.removeprefix(block)) and linear_shape(module)[0] > linear_shape(module)[1]
    ]
    if not closing:
        raise _not_chosen(baseline, "the model has no down projection that is known")
    return closing[-1]


def _not_chosen(baseline: str, problem: str) -> MeloError:
    hint = f"name one with --baseline-set {baseline}.weights=NAME; `melo inspect MODEL` lists them"
    return MeloError(problem, where=f"--baseline {baseline}", hint=hint)
