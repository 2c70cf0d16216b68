"""Opens the project of a recipe, or makes it; a key that is left to measuring is calibrated first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from melo_cli.base_model import BaseModel, load_base_model
from melo_cli.calibration import (
    Calibration,
    calibration_for,
    plot_sweep,
    put_in_force,
    settled,
    stored_requests,
)
from melo_cli.datasets import EditRequest
from melo_cli.errors import RecipeError
from melo_cli.loading import OpenProject, assemble, encoder_for, resolve_recipe
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.reporter import Reporter
from melo_cli.versions import library_versions
from store.project import Project

# What a project's neurons and blocks rest on: a project has one of each, and of a key until it is calibrated.
_FIXED = ("task", "model.template", "lora.target_modules")
_FIXED_KEY = ("key.layer", "key.pooling")
PLOT = "calibration.png"
"""In a project: the sweep of its latest calibration."""


def open_or_create(
    recipe: Recipe, requests: Sequence[EditRequest], path: Path, reporter: Reporter, *, command: str
) -> tuple[OpenProject, Calibration | None]:
    """The project of a recipe, ready for its edits, and the calibration that was made on the way, if any.

    Nothing is written before everything fits: no project is made for a recipe or data with a fault.

    Raises:
        MeloError: recipe, data, model or project do not fit.
    """
    reporter.info(f"loading {recipe.model.name_or_path}")
    base = load_base_model(recipe.model, recipe.task)
    project = Project.open(path) if Project.exists(path) else None
    kept = _kept(project, base, path)
    resolved = resolve_recipe(recipe, base, kept)
    encoder = encoder_for(resolved, base)
    for request in requests:
        encoder.edit(request.prompt, request.target)
    if kept is not None:
        _require_same_settings(resolved, kept, path)
    found, key_map = None, None
    if resolved.key.needs_calibration:
        targets = list(resolved.lora.target_modules)
        found, key_map = calibration_for(resolved, base, encoder, targets, requests, reporter)
    project = project or _create(resolved, base, path)
    if found is not None and key_map is not None:
        resolved = settled(resolved, found)
        with project.writer() as writer:
            put_in_force(writer, key_map, resolved, None, versions=library_versions(), command=command)
            project = writer.project
        plot_sweep(found, path / PLOT)
    return assemble(project, resolved, base), found


def calibrate_again(
    path: Path, overrides: Sequence[str], reporter: Reporter, *, command: str, base: str | None = None
) -> Calibration:
    """Calibrate a project on its own edits, and give all its neurons their new keys, in one commit.

    Args:
        overrides: `--set` texts over the project's recipe, whose key is left to measuring again.

    Raises:
        MeloError: there is no such project, or too little to measure on.
    """
    project = Project.open(path)
    recipe = recipe_from_mapping({**project.recipe, "key": {}}, overrides, where=f"{path}: recipe")
    if not recipe.key.needs_calibration:
        raise RecipeError("a radius that is given is not calibrated", where="--set key.radius")
    section = recipe.model.model_copy(
        update={"name_or_path": base or project.base.name_or_path, "revision": project.base.revision}
    )
    reporter.info(f"loading {section.name_or_path}")
    loaded = load_base_model(section, recipe.task)
    kept = _kept(project, loaded, path)
    resolved = resolve_recipe(recipe, loaded)
    if kept is not None:
        _require_same_settings(resolved, kept, path)
    encoder = encoder_for(resolved, loaded)
    targets = list(resolved.lora.target_modules)
    edits = stored_requests(project)
    found, key_map = calibration_for(resolved, loaded, encoder, targets, edits, reporter)
    resolved = settled(resolved, found)
    asker = assemble(project, resolved, loaded, key_map).asker
    with project.writer() as writer:
        put_in_force(writer, key_map, resolved, asker, versions=library_versions(), command=command)
    plot_sweep(found, path / PLOT)
    return found


def _kept(project: Project | None, base: BaseModel, path: Path) -> Recipe | None:
    """The recipe of a project that is there, once its base is known to be the same."""
    if project is None:
        return None
    project.base.require_same(base.reference)
    return recipe_from_mapping(project.recipe, where=f"{path}: recipe")


def _create(recipe: Recipe, base: BaseModel, path: Path) -> Project:
    return Project.create(
        path,
        name=recipe.name,
        base=base.reference,
        recipe=recipe.to_mapping(),
        seed=recipe.seed,
        versions=library_versions(),
    )


def _require_same_settings(recipe: Recipe, kept: Recipe, path: Path) -> None:
    measured = recipe.key.needs_calibration or kept.key.needs_calibration
    for dotted in _FIXED if measured else (*_FIXED, *_FIXED_KEY):
        section, _, name = dotted.rpartition(".")
        ours = getattr(getattr(recipe, section) if section else recipe, name)
        theirs = getattr(getattr(kept, section) if section else kept, name)
        if ours != theirs:
            raise RecipeError(
                f"{dotted} is {ours!r}, but the project's edits were made with {theirs!r}",
                where=str(path),
                mend="keep it, or start another project with --project",
            )
