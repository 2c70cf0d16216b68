"""The recipe of a project that was started without one: a model, and all else as it is by default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from melo_cli.recipe.load import recipe_from_mapping
from melo_cli.recipe.schema import Recipe

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def default_recipe(model: str, edits: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe for a model alone, asked in its chat template where it has one.

    Args:
        model: folder, hub id, or path of a GGUF file.
        edits: data file or hub id of the edits, where there are more than one.
        overrides: `--set` texts over it.

    Raises:
        RecipeError: a value does not fit.
    """
    values: dict[str, Any] = {
        "name": project_name(model),
        "task": "custom",
        "model": {"name_or_path": model},
    }
    if edits is not None:
        values["dataset"] = {"edits": edits}
    return recipe_from_mapping(values, overrides, where="--model")


def project_name(model: str) -> str:
    """A project's name for a model: the last part of its path, without what a file name cannot have."""
    last = PurePath(model.replace("\\", "/")).name
    stem = last[: -len(".gguf")] if last.lower().endswith(".gguf") else last
    return _UNSAFE.sub("-", stem).strip("-.")[:100] or "model"
