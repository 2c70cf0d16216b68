"""Opens the project of a recipe, or makes it; what its edits answer for is learnt first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melo_cli.calibration import Calibration, ReaderFactory, put_in_force, reader_here, stored_requests
from melo_cli.calibration import calibrate as learn_scope
from melo_cli.datasets import EditRequest
from melo_cli.errors import RecipeError
from melo_cli.models.base_model import BaseModel
from melo_cli.models.class_labels import note_on_numbers, with_class_names
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import (
    OpenProject,
    assemble,
    encoder_for,
    load_base,
    model_of,
    resolve_recipe,
    router_for,
    stored_recipe,
)
from melo_cli.runtime.projects import project_with_edits, require_writable
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

# What a project's neurons and blocks rest on: a project has one of each.
_FIXED = ("task", "model.template", "lora.target_modules", "routing.scope", "key.layer", "key.pooling")
_BY_CALIBRATION = ("routing.scope", "key.layer", "key.pooling")
_COMPARED = 100
"""Prompts whose keys are compared under the rule `radius`."""


def open_or_create(
    recipe: Recipe,
    requests: Sequence[EditRequest],
    path: Path,
    reporter: Reporter,
    *,
    command: str,
    readers: ReaderFactory = reader_here,
) -> tuple[OpenProject, Calibration | None]:
    """The project of a recipe, ready for its edits, and the calibration that was made on the way, if any.

    Nothing is written before everything fits: no project is made for a recipe or data with a fault.

    Args:
        recipe: the recipe, not resolved yet.
        requests: the edits that are to be made; calibration learns from them.
        path: where the project is, or where it is made.
        reporter: shows progress and warnings.
        command: the command line that the history records.
        readers: what reads for calibration.

    Returns:
        The open project, and the calibration; None where the project has a scope model already or the rule
        is `radius`.

    Raises:
        MeloError: recipe, data, model or project do not fit.
    """
    project = project_with_edits(path)
    kept = stored_recipe(project) if project is not None else None
    section = recipe.model
    if kept is not None:
        section = section.model_copy(update={"template_day": kept.model.template_day})
    base = load_base(recipe, section, project, reporter)
    resolved = resolve_recipe(recipe, base)
    encoder = encoder_for(resolved, base)
    for request in with_class_names(requests, base):
        encoder.edit(request.prompt, request.target)
    if note := note_on_numbers((request.target for request in requests), base):
        reporter.warn(note)
    if kept is not None:
        _require_same_settings(resolved, kept, path)
    calibration = None
    if resolved.routing.scope == "verified" and (project is None or project.key_map is None):
        calibration = learn_scope(resolved, base, requests, reporter, readers)
    project = project or _create(resolved, base, path)
    if calibration is not None:
        project = _put_in_force(calibration, project, resolved, base, command)
    opened = assemble(project, resolved, base)
    if resolved.routing.scope == "radius":
        _require_different_keys(opened, requests)
    return opened, calibration


def calibrate_again(
    path: Path,
    overrides: Sequence[str],
    reporter: Reporter,
    *,
    command: str,
    base: str | None = None,
    readers: ReaderFactory = reader_here,
) -> Calibration:
    """Learn anew what a project's edits answer for, and give all its neurons new records, in one commit.

    A project under the rule `radius`, as all of format 2 are, is `verified` from then on.

    Args:
        path: the project.
        overrides: `--set` texts over the project's recipe.
        reporter: shows progress.
        command: the command line that the history records.
        base: folder or hub id of the base model, where it is no longer where the project found it.
        readers: what reads the corpus and the project's data.

    Returns:
        The scope model, its threshold and the figures that are expected of them.

    Raises:
        MeloError: there is no such project, or the recipe does not fit.
    """
    project = Project.open(path)
    before = stored_recipe(project)
    key = {"encoder": before.key.encoder}
    routing = {**before.routing.model_dump(mode="json"), "scope": "verified"}
    recipe = stored_recipe(project, overrides, {"key": key, "routing": routing})
    if recipe.routing.scope != "verified":
        raise RecipeError("only the rule verified is calibrated", where="--set routing.scope")
    require_writable(path)
    section = model_of(project, recipe, base, revision=project.base.revision)
    loaded = load_base(recipe, section, project, reporter)
    resolved = resolve_recipe(recipe, loaded)
    _require_same_settings(resolved, before, path, free=_BY_CALIBRATION)
    calibration = learn_scope(resolved, loaded, stored_requests(project), reporter, readers)
    _put_in_force(calibration, project, resolved, loaded, command)
    return calibration


def _put_in_force(
    calibration: Calibration, project: Project, recipe: Recipe, base: BaseModel, command: str
) -> Project:
    """Commit a calibration, with new records for the edits that are there.

    Returns:
        The project at that commit.
    """
    key_map = calibration.key_map(recipe.seed)
    router = router_for(recipe, base, key_map, project)
    with open_writer(project) as writer:
        put_in_force(writer, key_map, recipe, router, versions=library_versions(), command=command)
        return writer.project


def _require_different_keys(opened: OpenProject, requests: Sequence[EditRequest]) -> None:
    """Refuse a key that is the same whatever is asked: then every prompt would fire."""
    prompts = list(dict.fromkeys(request.prompt.strip() for request in requests))[:_COMPARED]
    keys = [record.key for record in opened.routed.router.records(prompts, [None] * len(prompts))]
    if len(keys) > 1 and all(np.array_equal(keys[0], key) for key in keys[1:]):
        raise RecipeError(
            f"the key at {opened.recipe.key.layer} with pooling {opened.recipe.key.pooling} is the same for "
            "every prompt",
            where="key.layer",
            hint="name a higher layer, set key.pooling=mean, or leave routing.scope and key.radius out",
        )


def _create(recipe: Recipe, base: BaseModel, path: Path) -> Project:
    """A new project, in the place of one without edits that an interrupted run has left."""
    if Project.exists(path):
        Project.remove_empty(path)
    return Project.create(
        path,
        name=recipe.name,
        base=base_reference(base),
        recipe=recipe.to_mapping(),
        seed=recipe.seed,
        versions=library_versions(),
    )


def _require_same_settings(recipe: Recipe, kept: Recipe, path: Path, free: Sequence[str] = ()) -> None:
    for dotted in _FIXED:
        section, _, name = dotted.rpartition(".")
        ours = getattr(getattr(recipe, section) if section else recipe, name)
        theirs = getattr(getattr(kept, section) if section else kept, name)
        if dotted not in free and ours != theirs:
            calibrate = "run `melo calibrate`, " if dotted in _BY_CALIBRATION else ""
            raise RecipeError(
                f"{dotted} is {ours!r}, but the project's edits were made with {theirs!r}",
                where=str(path),
                hint=f"keep it, {calibrate}or start another project with --project",
            )
