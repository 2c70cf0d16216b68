"""Each linear module of the last block can be the only target, in every architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pico_architectures import ARCHITECTURES, last_linears, recipe_of

from melo_cli.editing import edit_dataset
from melo_cli.errors import ModelError
from melo_cli.models.architecture import default_targets
from melo_cli.models.base_model import load_base_model
from melo_cli.reporter import SilentReporter

Built = Callable[[str], Path]

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_linear_of_the_last_block_can_be_the_only_target(
    name: str, built: Built, tmp_path: Path
) -> None:
    recipe = recipe_of(built(name), tmp_path, "auto")
    for number, target in enumerate(last_linears(load_base_model(recipe.model, "custom"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused = takes_or_says_why(built(name), folder, target)
        assert refused is None or "does not run" in refused, f"{target}: {refused}"


def takes_or_says_why(model: Path, folder: Path, target: str) -> str | None:
    recipe = recipe_of(model, folder, [target])
    few = recipe.training.model_copy(update={"max_steps": 10, "retries": 0})
    recipe = recipe.model_copy(update={"training": few})
    try:
        summary = edit_dataset(recipe, folder / "project", SilentReporter(), command="test")
    except ModelError as error:
        return str(error)
    # One module of a random model may not be enough for the answer; it is trained and asked all the same.
    assert summary.outcomes[0].status in ("solved", "failed")
    return None


def row(name: str, model: Path, folder: Path) -> str:
    """What the documentation says of one architecture; names are those inside a block."""
    recipe = recipe_of(model, folder, "auto")
    base = load_base_model(recipe.model, "custom")
    *_, last = (re.match(r".*?\.\d+\.", target) for target in default_targets(base))
    assert last is not None
    chosen = [target.removeprefix(last[0]) for target in default_targets(base) if target.startswith(last[0])]
    linears = [re.sub(r".*?\.\d+\.", "", target, count=1) for target in last_linears(base)]
    code = ", ".join(f"`{each}`" for each in chosen)
    others = ", ".join(f"`{each}`" for each in linears if each not in chosen)
    return f"| {name} | `{ARCHITECTURES[name][0]}` | {code} | {others} |"


def test_the_table_in_the_docs_says_what_is_tested(built: Built, tmp_path: Path) -> None:
    written = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if "`" in line and "|" in line]
    assert written == [row(name, built(name), tmp_path) for name in ARCHITECTURES]
