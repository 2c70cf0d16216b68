"""Makes a checked recipe from a YAML file or a mapping, and `--set` options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from melo_cli.errors import RecipeError
from melo_cli.recipe.messages import describe
from melo_cli.recipe.overrides import Override, apply_overrides
from melo_cli.recipe.schema import Recipe
from melo_cli.recipe.yaml_text import read_yaml_mapping


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path`, apply `--set` overrides and check the whole.

    Paths inside the recipe stay as written: they are relative to the current directory.

    Args:
        path: a YAML file.
        overrides: texts of the form `section.key=value`, later ones winning.

    Raises:
        RecipeError: the file cannot be read, or the recipe has faults; all of them in one line, each with its
            dotted path and, for an unknown key, the nearest known one.
    """
    return recipe_from_mapping(read_yaml_mapping(path), overrides, where=str(path))


def recipe_from_mapping(
    mapping: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "recipe"
) -> Recipe:
    """Check a mapping, such as the resolved recipe that a project keeps.

    Args:
        mapping: what a YAML file holds, or `Recipe.to_mapping` gave; it is not changed.
        overrides: as in `load_recipe`.
        where: file or project, for the error.

    Raises:
        RecipeError: as in `load_recipe`.
    """
    parsed = [Override.parse(text) for text in overrides]
    try:
        return Recipe.model_validate(apply_overrides(mapping, parsed))
    except ValidationError as error:
        faults = describe(error, [override.path for override in parsed])
        raise RecipeError(faults, where=where) from error
