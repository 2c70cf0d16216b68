"""`melo edit --estimate`: what a run would take, without a project."""

from __future__ import annotations

from pathlib import Path

from melo_cli.editing.plan import requests_of
from melo_cli.editing.resource_check import require_room
from melo_cli.editing.time_estimate import Forecast, StepTimer
from melo_cli.editing.training import train_blocks
from melo_cli.models.class_labels import with_class_names
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import encoder_for, load_base, resolve_recipe, tuner_for

_STEPS = 3


def estimate_dataset(recipe: Recipe, path: Path, reporter: Reporter, *, force: bool = False) -> Forecast:
    """Train the first group of a recipe's edits for some steps, and forecast the whole; nothing is written.

    Args:
        path: where the project would be.
        force: go on where memory or disk do not suffice.

    Raises:
        RoomError: they do not.
        MeloError: recipe, data or model do not fit.
    """
    requests = requests_of(recipe, reporter)
    needs = require_room(recipe, requests, path, reporter, force=force)
    base = load_base(recipe, recipe.model, None, reporter)
    resolved = resolve_recipe(recipe, base)
    encoder, training, lora = encoder_for(resolved, base), resolved.training, resolved.lora
    tuner = tuner_for(resolved, base)
    group = with_class_names(requests[: training.batch_size * training.blocks_in_flight], base)
    # An edit's variants are about as long as its prompt.
    rows = [[encoder.edit(each.prompt, each.target)] * (1 + training.variants) for each in group]
    batches = [
        [row for edit in rows[start : start + training.batch_size] for row in edit]
        for start in range(0, len(rows), training.batch_size)
    ]
    made: list[Forecast] = []
    timer = StepTimer(len(requests), training, needs, made.append)
    few = training.model_copy(update={"max_steps": _STEPS, "stop_at": None})
    train_blocks(
        base,
        tuner,
        batches,
        few,
        rank=lora.rank,
        scale=lora.scale,
        seed=0,
        frozen_a=lora.frozen_a,
        on_step=lambda _: timer.on_step(),
    )
    return made[0]
