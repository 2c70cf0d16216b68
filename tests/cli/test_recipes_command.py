"""`melo recipes`: what comes with melo, and a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from melo_cli.recipe import load_recipe

Melo = Callable[..., Any]

SHIPPED = {
    "hallucination_gpt2xl",
    "llama",
    "scotus_bert",
    "zsre_t5large",
    "zsre_t5small",
}


def test_they_are_listed_with_what_they_do(here: Path, melo: Melo) -> None:
    run = melo("recipes")
    assert run.code == 0
    listed = {line.split()[0]: line for line in run.out.splitlines()[1:-1]}
    assert set(listed) >= SHIPPED
    assert "zsRE with T5-small" in listed["zsre_t5small"]
    documents = melo("recipes", "--json").json
    assert {document["name"] for document in documents} == set(listed)
    assert all(load_recipe(Path(document["path"])) for document in documents)


def test_a_copy_is_a_recipe_of_its_own(here: Path, melo: Melo) -> None:
    (here / "folder").mkdir()
    for arguments, target in (
        (["zsre_t5small"], "zsre_t5small.yaml"),
        (["zsre_t5small.yaml", "mine.yaml"], "mine.yaml"),
        (["zsre_t5small", "folder"], "folder/zsre_t5small.yaml"),
    ):
        run = melo("recipes", "copy", *arguments)
        assert (run.code, run.out) == (0, f"wrote {target}\n")
        assert yaml.safe_load((here / target).read_text())["name"] == "zsre_t5small"


def test_a_copy_replaces_nothing(here: Path, melo: Melo) -> None:
    (here / "zsre_t5small.yaml").write_text("mine")
    run = melo("recipes", "copy", "zsre_t5small")
    assert (run.code, run.error) == (2, "zsre_t5small.yaml: the file exists already; name another file")
    assert (here / "zsre_t5small.yaml").read_text() == "mine"
    run = melo("recipes", "copy", "zsre_t5small", "no/such/folder.yaml")
    assert (run.code, run.error) == (
        2,
        "no/such/folder.yaml: the file cannot be written (No such file or directory)",
    )


def test_one_that_is_not_shipped(here: Path, melo: Melo) -> None:
    run = melo("recipes", "copy", "zsre_t5smal")
    assert run.code == 2
    assert "zsre_t5small" in run.error
