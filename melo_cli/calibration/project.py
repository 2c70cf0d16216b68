"""Puts a calibration in force: the key map, the recipe that it settles, and new keys for the edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melo_cli.answering import Asker
from melo_cli.base_model import BaseModel
from melo_cli.calibration.calibrate import Calibration, calibrate
from melo_cli.calibration.material import Material, collect_material
from melo_cli.calibration.seen import digests
from melo_cli.datasets import EditRequest, load_calibration, load_locality
from melo_cli.encoding import Encoder
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from store.project import Project
from store.records import KeyMap
from store.writer import Writer

# With fewer edits of its own than this, calibration takes those that evaluation would ask.
_FEWEST_TO_HOLD_BACK = 2


def calibration_for(
    recipe: Recipe,
    base: BaseModel,
    encoder: Encoder,
    targets: Sequence[str],
    edits: Sequence[EditRequest],
    reporter: Reporter,
) -> tuple[Calibration, KeyMap]:
    """Calibrate on the recipe's data, and say what the project is to keep of it.

    Args:
        edits: the edits that are or will be in the project.
        targets: full names of the target modules.

    Raises:
        MeloError: there is too little data, or it cannot be read.
    """
    material = _material(recipe, edits, reporter)
    found = calibrate(base, encoder, recipe, targets, material, reporter)
    return found, found.transform.to_key_map(_settings(found, recipe))


def settled(recipe: Recipe, found: Calibration) -> Recipe:
    """The recipe with the key that calibration chose."""
    chosen = found.chosen.candidate
    key = {"layer": chosen.layer, "pooling": chosen.pooling, "radius": found.radius}
    return recipe.model_copy(update={"key": recipe.key.model_copy(update=key)})


def put_in_force(
    writer: Writer,
    key_map: KeyMap,
    recipe: Recipe,
    asker: Asker | None,
    *,
    versions: Mapping[str, str],
    command: str,
) -> None:
    """Commit a key map, with new keys for every edit that has one.

    Args:
        recipe: as `settled` gave it.
        asker: takes keys as the key map says; needed where there are edits.
    """
    records = [view.record for view in writer.project.edits() if view.record.key is not None]
    keys = {}
    if records and asker is not None:
        taken = asker.keys([asker.encoder.prompt(record.prompt) for record in records])
        keys = {record.edit_id: key for record, key in zip(records, taken, strict=True)}
    assert isinstance(recipe.key.radius, float), "calibration settles the radius"
    writer.rekey(
        key_map,
        keys,
        dict.fromkeys(keys, recipe.key.radius),
        recipe=recipe.to_mapping(),
        seed=recipe.seed,
        versions=versions,
        command=command,
    )


def stored_requests(project: Project) -> list[EditRequest]:
    """The edits of a project as they were asked for; reverted ones left out."""
    records = [view.record for view in project.edits() if view.status != "reverted"]
    return [
        EditRequest(each.prompt, each.target, each.rephrases, each.locality, each.subject) for each in records
    ]


def _material(recipe: Recipe, edits: Sequence[EditRequest], reporter: Reporter) -> Material:
    dataset, settings = recipe.dataset, recipe.calibration
    unrelated: list[str] = []
    if dataset is not None and dataset.locality is not None:
        unrelated = [prompt for prompt, _ in load_locality(dataset, recipe.task, reporter)]
    if dataset is not None and dataset.calibration is not None:
        rows = load_calibration(dataset, recipe.task, reporter)
        return collect_material(
            rows,
            unrelated,
            task=recipe.task,
            share=1.0,
            unrelated_share=settings.share,
            most=settings.max_edits,
            seed=recipe.seed,
            apart_from=edits,
        )
    held_back = _share_of(recipe, edits, unrelated, settings.share)
    if len(held_back.anchors) >= _FEWEST_TO_HOLD_BACK or not edits:
        return held_back
    reporter.warn(
        "so few edits that the key is calibrated on all: evaluation has no unseen rephrases of them"
    )
    return _share_of(recipe, edits, unrelated, 1.0)


def _share_of(
    recipe: Recipe, edits: Sequence[EditRequest], unrelated: Sequence[str], share: float
) -> Material:
    return collect_material(
        edits,
        unrelated,
        task=recipe.task,
        share=share,
        unrelated_share=recipe.calibration.share,
        most=recipe.calibration.max_edits,
        seed=recipe.seed,
    )


def _settings(found: Calibration, recipe: Recipe) -> dict[str, Any]:
    return {
        "radius": found.radius,
        "anchors": len(found.material.anchors),
        "unrelated": len(found.material.unrelated),
        "rephrases": "given" if found.material.given else "made",
        "max_false_fire": recipe.routing.max_false_fire.model_dump(),
        "chosen": found.chosen.to_json(),
        "sweep": [row.to_json() for row in found.sweep],
        "skipped_layers": list(found.skipped),
        "seed": recipe.seed,
        "seen": digests(found.material.prompts()),
    }
