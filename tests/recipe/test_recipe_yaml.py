"""Recipe files: what YAML may look like, and the line for each way in which a file is no recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.errors import RecipeError
from melo_cli.recipe import load_recipe
from melo_cli.recipe.yaml_text import LARGEST_RECIPE, parse_yaml

GOOD = "name: a\ntask: zsre\nmodel: {name_or_path: m}\nkey: {radius: 1}\n"


def fault(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def fault_of(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    return fault(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ": is empty; a recipe needs name, task, model and key"),
        (b"# nothing but a comment\n", ": is empty"),
        (b"- a\n- b\n", ": holds a list"),
        (b"just words", ": holds one value"),
        (b"name: a\ntask: \xe9\n", ":2: is not UTF-8 (byte 15); save it as UTF-8"),
        (b"name: a\nseed: 1\nname: b\n", ':3: the key "name" is repeated'),
        (b"model:\n  revision: a\n  revision: b\n", ':3: the key "revision" is repeated'),
        (b"name: [a\ntask: b\n", ": is not YAML"),
        (b"name: a\n1: b\n", ":2: the key 1 is not text"),
        (b"name: &a b\ntask: *a\n", ":1: anchors and aliases"),
        (b"name: !!python/object/apply:os.getcwd []\n", ":1: tags (!) are not allowed in a recipe"),
        (b"name: 2024-13-40\n", ": is not YAML (month must be in 1..12)"),
        (b"name: " + b"[" * 3000, ": is nested too deeply"),
        (b"name: a\x00", ": is not YAML"),
        (b"a: 1\n---\nb: 2\n", ": is not YAML (but found another document)"),
    ],
)
def test_a_file_that_is_no_recipe(content: bytes, line: str, tmp_path: Path) -> None:
    message = fault_of(content, tmp_path)
    assert line.partition(": ")[2] in message
    assert line.partition(": ")[0] in message


def test_a_missing_file_offers_the_nearest_beside_it(tmp_path: Path) -> None:
    (tmp_path / "zsre_t5small.yaml").write_text(GOOD)
    assert fault(tmp_path / "zsre_t5smal.yaml") == ": no such file; did you mean zsre_t5small.yaml?"
    assert "melo recipes lists" in fault(tmp_path / "nowhere" / "x.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert fault(tmp_path) == ": is a folder; name the YAML file in it"


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in fault_of(b"#" * (LARGEST_RECIPE + 1), tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_recipe(path).name == "a"


@pytest.mark.parametrize("written", ["1e-2", "1E-2", "1.0e-2", ".1e-1", "+1e-2", "10e-3", "0.01"])
def test_numbers_with_an_exponent_are_numbers(written: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"{GOOD}training: {{optimizer: {{name: Adam, lr: {written}}}}}\n")
    assert load_recipe(path).training.optimizer.arguments == {"lr": 0.01}


@pytest.mark.parametrize("written", ["1e", "e-2", "1e-2x", "v1e5", "'1e-2'"])
def test_what_only_looks_like_a_number_stays_text(written: str) -> None:
    assert parse_yaml(written, "t") == written.strip("'")


@given(st.text(max_size=60) | st.text(st.sampled_from("a1&*!:-[]{}<>=|%@`'\"#?,~. \n\t\\x0"), max_size=40))
def test_any_text_is_yaml_or_a_recipe_error(text: str) -> None:
    try:
        parse_yaml(text, "t")
    except RecipeError as error:
        assert str(error).startswith("t")
