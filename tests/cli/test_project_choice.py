"""Which project a command means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.commands._project_choice import choose_project, project_for_recipe
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import EXPORTED_PROJECT

Make = Callable[..., Any]


def test_the_last_edited_under_dot_melo(here: Path, make_project: Make, add_edits: Make) -> None:
    make_project(here / ".melo/old")
    make_project(here / ".melo/new")
    assert choose_project(None).name == "new"
    add_edits(here / ".melo/old", ("a", "b"))
    assert choose_project(None).name == "old"


def test_a_folder_above_counts(here: Path, make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(here / ".melo/above")
    (here / "a/b").mkdir(parents=True)
    monkeypatch.chdir(here / "a/b")
    assert choose_project(None).name == "above"
    make_project(here / "a/.melo/nearer")
    assert choose_project(None).name == "nearer"


def test_a_task_picks_the_project_of_that_task(here: Path, make_project: Make) -> None:
    make_project(here / ".melo/law", task="scotus")
    make_project(here / ".melo/facts", task="zsre")
    assert choose_project(None, task="scotus").name == "law"
    assert choose_project(None, task="zsre").name == "facts"


def test_a_folder_above_that_fits_comes_after_one_that_does_not(
    here: Path, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(here / ".melo/law", task="scotus")
    make_project(here / "a/.melo/facts", task="zsre")
    monkeypatch.chdir(here / "a")
    assert choose_project(None, task="scotus").name == "law"


def test_two_of_one_task_are_an_error_that_lists_them(here: Path, make_project: Make) -> None:
    make_project(here / ".melo/one")
    make_project(here / ".melo/two")
    with pytest.raises(MeloError) as caught:
        choose_project(None, task="zsre")
    assert str(caught.value) == (
        "2 projects fit equally: one (.melo/one), two (.melo/two); name one with --project"
    )
    assert choose_project("two", task="zsre").name == "two"


def test_a_task_that_no_project_has(here: Path, make_project: Make) -> None:
    make_project(here / ".melo/law", task="scotus")
    make_project(here / ".melo/facts", task="zsre")
    with pytest.raises(MeloError) as caught:
        choose_project(None, task="hallucination")
    assert str(caught.value) == (
        "--task: no project has task hallucination; facts has task zsre, law has task scotus"
    )
    with pytest.raises(MeloError, match="its task is scotus, not zsre"):
        choose_project("law", task="zsre")


def test_the_environment_comes_before_the_folder_and_after_the_option(
    here: Path, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        make_project(here / f".melo/{name}")
    monkeypatch.setenv("MELO_PROJECT", "one")
    assert choose_project(None).name == "one"
    assert choose_project("two").name == "two"
    monkeypatch.setenv("MELO_PROJECT", "")
    assert choose_project(None).name == "three"


def test_a_bare_name_is_one_under_dot_melo_before_it_is_a_path(
    here: Path, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(here / "facts", task="scotus")
    assert choose_project("facts").path == Path("facts")
    make_project(here / ".melo/facts", task="zsre")
    assert choose_project("facts").path == Path(".melo/facts")
    assert choose_project("./facts").path == Path("facts")
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert choose_project("facts").path == here / ".melo/facts"


def test_a_name_that_is_none_gets_the_nearest(here: Path, make_project: Make) -> None:
    make_project(here / ".melo/facts")
    with pytest.raises(MeloError, match=r"fcats: there is no project; did you mean facts\?"):
        choose_project("fcats")
    with pytest.raises(MeloError, match="there is no project; known here are facts"):
        choose_project("something/else")


def test_nothing_there_at_all(here: Path) -> None:
    with pytest.raises(MeloError) as caught:
        choose_project(None)
    assert "make one with `melo edit --model MODEL --prompt TEXT --target TEXT` or `melo edit RECIPE`" in str(
        caught.value
    )


def test_what_is_no_project_under_dot_melo_does_not_count(here: Path, make_project: Make) -> None:
    (here / ".melo/notes").mkdir(parents=True)
    (here / ".melo/file").write_text("x")
    make_project(here / ".melo/facts")
    assert choose_project(None).name == "facts"


def test_an_exported_folder_is_a_project(here: Path, make_project: Make) -> None:
    make_project(here / "artefact" / EXPORTED_PROJECT)
    assert choose_project("artefact").path == Path("artefact")


def test_where_a_recipe_goes(here: Path, make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def goes(named: str | None, recipe: str) -> str:
        return str(project_for_recipe(named, recipe))

    assert goes(None, "facts") == "facts (.melo/facts)"
    assert goes("other", "facts") == "facts (other)"
    assert goes("some/where", "facts") == "facts (some/where)"
    make_project(here / ".melo/facts")
    make_project(here / ".melo/mine")
    assert goes("mine", "facts") == "mine (.melo/mine)"
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert goes(None, "facts") == f"facts ({here}/.melo/facts)"
    assert goes(None, "new") == "new (.melo/new)"
    monkeypatch.setenv("MELO_PROJECT", "mine")
    assert goes(None, "facts") == f"mine ({here}/.melo/mine)"
