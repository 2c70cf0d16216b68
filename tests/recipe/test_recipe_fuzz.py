"""Recipes that were broken in any way give one line of our own, whatever the break."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from melo_cli.errors import MeloError
from melo_cli.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
PIECES = ["\t", ":", "- ", "&a ", "*a", "{", "}", "[", "!!python/object:os.system", "null", "1e999", "\x00"]
PIECES += [
    "\ufeff",
    "'",
    '"',
    "|\n",
    "<<: ",
    "? ",
    "%YAML 9",
    "---\n",
    "...\n",
    "-1",
    "0x_",
    "2026-01-01",
    "~",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_mutated_recipe_is_read_or_refused_in_one_line(recipe: Path, tmp_path: Path) -> None:
    whole = recipe.read_bytes()
    path = tmp_path / "recipe.yaml"

    @settings(
        max_examples=40,
        phases=[Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        content = whole
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content)))
            gone = data.draw(st.sampled_from([0, 1, 5, 40]))
            put = data.draw(st.sampled_from([piece.encode() for piece in PIECES]) | st.binary(max_size=4))
            content = content[:at] + put + content[at + gone :]
        path.write_bytes(content)
        try:
            load_recipe(path, [])
        except MeloError as error:
            assert str(error) and "\n" not in str(error)

    check()
