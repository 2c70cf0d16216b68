"""Checks that a run fits this machine, before weights are read and before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from melo_cli.calibration.scope_cache import is_learnt_with
from melo_cli.datasets import EditRequest
from melo_cli.editing.resource_estimate import ModelSizes, Needs, needs_of, sizes_of, weight_type
from melo_cli.errors import MeloError, RoomError
from melo_cli.machine import free_disk, main_memory
from melo_cli.models.architecture import default_key_layer, resolve_targets
from melo_cli.models.base_model import BaseModel, load_base_model, resolve_device
from melo_cli.models.class_labels import with_class_names
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.units import about_bytes
from melo_store.overview import Overview
from melo_store.project import Project

_HALF = 2
# What to try in turn where memory is short: what costs time alone, then precision, then training.
_REMEDIES: tuple[Mapping[str, Any], ...] = (
    {"training.blocks_in_flight": 4},
    {"training.blocks_in_flight": 1},
    {"model.dtype": "bfloat16"},
    {"model.dtype": "bfloat16", "training.blocks_in_flight": 1},
    {"model.dtype": "bfloat16", "training.blocks_in_flight": 1, "training.variants": 2},
    {"model.dtype": "bfloat16", "training.blocks_in_flight": 1, "training.batch_size": 1},
    {"model.dtype": "bfloat16", "training.blocks_in_flight": 1, "calibration.questions": 600},
)


def require_room(
    recipe: Recipe, requests: Sequence[EditRequest], path: Path, reporter: Reporter, *, force: bool = False
) -> Needs | None:
    """Estimate memory and disk of a run, and refuse the run if they are not free.

    The memory is the device's that the model runs on; an accelerator's model passes through main memory too,
    which is not counted.

    Args:
        path: where the project is or will be.
        force: go on with a warning.

    Returns:
        The needs of the run; None, with a warning, if the model cannot be read without its weights.

    Raises:
        RoomError: it does not fit, and `force` does not let it.
        MeloError: recipe, model or edits do not fit each other.
    """
    device = resolve_device(recipe.model.device)
    try:
        outline = load_base_model(recipe.model, recipe.task, weights=False)
        sizes = sizes_of(outline, recipe, with_class_names(requests, outline))
    except (RuntimeError, NotImplementedError) as error:  # code of the model's own that needs real tensors
        reporter.info(f"no estimate of memory: the model cannot be inspected without its weights ({error})")
        return None
    there = Overview.open(path) if Project.exists(path) else None
    left = max(len(requests) - (sum(there.edit_counts.values()) if there else 0), 0)
    fresh = recipe.routing.scope == "verified" and left == len(requests)

    def needs(changed: Recipe) -> Needs:
        learns = fresh and not _is_learnt(outline, sizes, changed, device)
        return needs_of(sizes, changed, left, device, learns=learns)

    needed = needs(recipe)
    short = _short_of_memory(needed, needs, sizes, recipe, device) or _short_of_disk(needed, path)
    if short is not None and not force:
        raise short
    if short is not None:
        reporter.warn(f"{short.what}; continuing because of --force")
    return needed


def _is_learnt(outline: BaseModel, sizes: ModelSizes, recipe: Recipe, device: torch.device) -> bool:
    """Whether scope has been learnt with this base before; with a sentence encoder it takes little anyway."""
    if recipe.key.encoder is not None:
        return False
    targets = resolve_targets(outline, recipe.lora.target_modules)
    layer = recipe.key.layer if recipe.key.layer != "auto" else default_key_layer(outline, targets)
    dtype = weight_type(sizes, recipe.model, device)
    return is_learnt_with(outline, layer, recipe.calibration.questions, dtype)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device's memory; None where it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    memory = main_memory()
    return memory.free if memory is not None else None


def _short_of_memory(
    needed: Needs,
    needs: Callable[[Recipe], Needs],
    sizes: ModelSizes,
    recipe: Recipe,
    device: torch.device,
) -> MeloError | None:
    free = free_memory(device)
    if free is None or needed.memory <= free:
        return None
    whose = f"on {device} " if device.type == "cuda" else ""
    options = _remedy(needs, sizes, recipe, device, free)
    hint = f"add {options}" if options else "take a smaller model, or a machine with more memory"
    return RoomError(
        f"the run needs about {about_bytes(needed.memory)} of memory "
        f"{whose}({about_bytes(needed.model)} for the "
        f"model), but {about_bytes(free)} are free",
        where=recipe.model.described,
        hint=f"{hint}; --force continues anyway",
    )


def _remedy(
    needs: Callable[[Recipe], Needs], sizes: ModelSizes, recipe: Recipe, device: torch.device, free: int
) -> str | None:
    """The first options with which the run fits; None where none are enough."""
    for wanted in _REMEDIES:
        changed, options = recipe, []
        for dotted, value in wanted.items():
            section_name, name = dotted.split(".")
            section = getattr(changed, section_name)
            if _lowers(sizes, changed, device, getattr(section, name), value):
                section = section.model_copy(update={name: value})
                changed = changed.model_copy(update={section_name: section})
                options.append(f"--set {dotted}={value}")
        if options and needs(changed).memory <= free:
            return " ".join(options)
    return None


def _lowers(sizes: ModelSizes, recipe: Recipe, device: torch.device, present: Any, value: Any) -> bool:
    """Whether a recipe's value becomes less by the change."""
    if isinstance(value, int):
        return bool(present > value)
    return weight_type(sizes, recipe.model, device).itemsize > _HALF


def _short_of_disk(needed: Needs, path: Path) -> MeloError | None:
    free = free_disk(path)
    if needed.disk <= free:
        return None
    return RoomError(
        f"the project needs about {about_bytes(needed.disk)} of disk, but {about_bytes(free)} are free",
        where=str(path),
        hint="free disk space, name a folder on another disk with --project, or set a lower lora.rank or a "
        "larger training.batch_size; --force continues anyway",
    )
