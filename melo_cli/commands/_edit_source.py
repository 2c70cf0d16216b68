"""Where `melo edit` takes settings and edits from: a recipe, a model alone, or a project that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melo_cli.commands._project_choice import ProjectRef, choose_project, project_for_recipe
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import open_store, project_with_edits

if TYPE_CHECKING:
    from melo_cli.recipe import Recipe
    from melo_store.project import Project


@dataclass(frozen=True)
class EditSource:
    """What the command line names.

    Attributes:
        recipe: the settings, and the data file where there is one; None is the project's own.
        base: where the base model lies now, if it is said.
    """

    project: ProjectRef
    recipe: Recipe | None
    base: str | None


def edit_source(
    named: str | None,
    model: str | None,
    overrides: Sequence[str],
    project: str | None,
    base: str | None,
    *,
    single: bool,
) -> EditSource:
    """The project of an edit, and the recipe by which it is made.

    Args:
        named: a recipe or a data file.
        single: the edit is on the command line.

    Raises:
        MeloError: what is named does not go together, or is not there.
    """
    from melo_cli.recipe.catalogue import is_recipe

    data = named if named is not None and not is_recipe(named) else None
    if single and data is not None:
        raise MeloError(
            "a file of edits and --prompt do not go together", where="melo edit", hint="leave one of them out"
        )
    if named is not None and data is None:
        return _by_recipe(named, model, overrides, project, base)
    if model is not None:
        return _by_model(model, data, overrides, project, base)
    chosen = choose_project(project)
    if data is None:
        _refuse_overrides(overrides)
        return EditSource(chosen, None, base)
    return EditSource(chosen, _kept(open_store(chosen.path), data, overrides, base), base)


def _by_recipe(
    name: str, model: str | None, overrides: Sequence[str], project: str | None, base: str | None
) -> EditSource:
    from melo_cli.recipe import load_recipe
    from melo_cli.recipe.catalogue import find_recipe

    for option, value in (("model", model), ("base", base)):
        if value is not None:
            raise MeloError(
                f"a RECIPE and --{option} do not go together",
                where="melo edit",
                hint="the recipe names the model: --set model.name_or_path=...",
            )
    recipe = load_recipe(find_recipe(name), overrides)
    return EditSource(project_for_recipe(project, recipe.name), recipe, None)


def _by_model(
    model: str, data: str | None, overrides: Sequence[str], project: str | None, base: str | None
) -> EditSource:
    from melo_cli.recipe import default_recipe

    if base is not None:
        raise MeloError("--model and --base do not go together", where="melo edit", hint="leave out --base")
    recipe = default_recipe(model, data, overrides)
    target = project_for_recipe(project, recipe.name)
    existing = project_with_edits(target.path)
    if existing is not None:
        recipe = _kept(existing, data, overrides, model)
    return EditSource(target, recipe, None)


def _kept(project: Project, data: str | None, overrides: Sequence[str], base: str | None) -> Recipe:
    """The settings that a project has, with other edits and with its base where that lies now."""
    from melo_cli.runtime.loading import model_of, stored_recipe

    dataset = project.recipe.get("dataset")
    kept = dataset if isinstance(dataset, dict) else {}
    section = {**kept, "edits": data, "format": "auto", "split": None, "max_edits": None} if data else dataset
    recipe = stored_recipe(project, overrides, {"dataset": section})
    return recipe.model_copy(update={"model": model_of(project, recipe, base)})


def _refuse_overrides(overrides: Sequence[str]) -> None:
    if overrides:
        raise MeloError(
            "--set changes a recipe, and none is named",
            where="melo edit",
            hint="name a RECIPE, or a model with --model",
        )
