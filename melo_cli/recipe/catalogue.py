"""The recipes that come with melo, wherever it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melo_cli.errors import RecipeError
from melo_cli.suggest import did_you_mean

_SUFFIXES = (".yaml", ".yml")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """One shipped recipe.

    Attributes:
        name: the file's path below the recipes without its ending (`zsre_t5small`,
            `published/zsre_t5small`); `melo edit NAME` takes it.
        summary: the first line of the comment that the file starts with.
    """

    name: str
    path: Path
    summary: str


def shipped_recipes() -> list[RecipeInfo]:
    """All shipped recipes, by name.

    Raises:
        RecipeError: the installation has lost them.
    """
    folder = _folder()
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return [
        RecipeInfo(path.relative_to(folder).with_suffix("").as_posix(), path, _summary(path))
        for path in paths
    ]


def is_recipe(name: str) -> bool:
    """Whether a name on the command line means a recipe, and no data: by its ending, or as a shipped one."""
    suffix = Path(name).suffix.lower()
    return suffix in _SUFFIXES or (not suffix and "/" not in name) or name in _shipped_paths()


def find_recipe(name: str) -> Path:
    """The file that a recipe's name or path means.

    Args:
        name: the name of a shipped recipe, or a path: an ending .yaml or .yml, a folder in front, or a file
            that is there.

    Raises:
        RecipeError: neither a path nor a shipped recipe.
    """
    path = Path(name)
    if path.suffix.lower() in _SUFFIXES or path.is_file():
        return path
    shipped = _shipped_paths()
    if name not in shipped and len(path.parts) > 1:
        return path
    if name not in shipped:
        hint = did_you_mean(name, shipped, count=2) or "list the shipped ones with `melo recipes`"
        raise RecipeError(f"{name!r} is neither a file nor a shipped recipe", where="RECIPE", hint=hint)
    return shipped[name]


def _shipped_paths() -> dict[str, Path]:
    return {recipe.name: recipe.path for recipe in shipped_recipes()}


def _folder() -> Path:
    """A wheel carries the recipes in the package; a checkout and an editable install, beside it."""
    installed = _PACKAGE / "shipped_recipes"
    checkout = _PACKAGE.parent / "recipes"
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise RecipeError("the shipped recipes are missing", where=str(installed), hint="install melo-cli again")


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
