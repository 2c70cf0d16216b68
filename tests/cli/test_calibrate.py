"""What an edit answers for is learnt before the first one, shown, and learnt anew by `melo calibrate`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_store.project import Project

Melo = Callable[..., Any]
KINDS = ("rephrase", "noisy", "same_subject", "hard", "unrelated")


@pytest.fixture
def small(here: Path, write_recipe: Callable[..., None], pico_gpt2: Path) -> Path:
    """A folder with `small.yaml`: four edits of a GPT-2 without rephrases, under the default rule."""
    facts = {
        "What is the capital of France?": "Paris",
        "In which year was the tower built?": "1889",
        "By whom was it opened?": "John Smith",
        "Who is the prime minister of Britain?": "London",
    }
    edits = [{"prompt": prompt, "target": target} for prompt, target in facts.items()]
    write_recipe(here, "small", pico_gpt2, "custom", edits, scope="verified")
    return here


def test_what_an_edit_answers_for_is_shown_before_the_edits(small: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[1].split() == ["prompt", "should", "corpus", "own", "own", "prompts"]
    text = " ".join(run.out.split())
    assert "the question in other words reach" in text
    assert "the question about another subject not fire" in text
    assert "learnt from the corpus" in text
    assert max(len(line) for line in lines) <= 80
    history = Project.open(small / ".melo/small").history()
    assert [info.action for info in history] == ["create", "calibrate", "edit", "edit"]


def test_a_project_is_calibrated_on_demand_in_one_commit(small: Path, melo: Melo) -> None:
    assert melo("edit", "small.yaml").code == 0
    before = Project.open(small / ".melo/small").snapshot
    settings = ("routing.max_false_fire.hard=0.01", "routing.open_requests=base")
    run = melo("calibrate", "--json", *(part for setting in settings for part in ("--set", setting)))
    assert run.code == 0
    document = run.json
    assert document["project"] == "small"
    assert set(document["corpus"]) == set(KINDS)
    assert document["corpus"]["hard"] <= 0.01
    assert 0 < document["threshold"] < 1
    after = Project.open(small / ".melo/small")
    assert after.snapshot == before + 1
    assert after.recipe["routing"]["max_false_fire"]["hard"] == 0.01
    assert after.recipe["routing"]["open_requests"] == "base"
    [answer] = melo("query", "What is the capital of France?", "--json").json
    assert answer["edited"] == "Paris"


def test_what_other_readers_at_hand_would_give_is_shown(
    small: Path, melo: Melo, pico_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy: other tests read the corpus with the shared one.
    encoder = Path(shutil.copytree(pico_bert, small / "tiny-encoder"))
    monkeypatch.setenv("MELO_CACHE", str(small / "cache"))
    few = ("--set", "calibration.questions=200")
    first = melo("edit", "small.yaml", *few)
    assert first.code == 0
    hint = "melo calibrate --set key.encoder=sentence-transformers/all-MiniLM-L6-v2"
    assert hint in first.out.splitlines(), "no other reader is at hand: one is named"
    alone = melo("calibrate", "--json", *few).json
    assert alone["other_readers"] == []
    run = melo("calibrate", "--set", f"key.encoder={encoder}", *few)
    assert run.code == 0
    rows = [line.split("  ") for line in run.out.splitlines()]
    heads = next(at for at, row in enumerate(rows) if row[0] == "read by" and "other words" in row)
    assert rows[heads + 1][0] == "the sentence encoder, now"
    assert rows[heads + 2][0] == "the base model"
    assert "all-MiniLM" not in run.out
    back = melo("calibrate", "--json", "--set", "key.encoder=null", *few).json
    [other] = back["other_readers"]
    assert other["encoder"] == str(encoder)
    assert set(other["corpus"]) == set(KINDS)
    assert back["corpus"] == alone["corpus"] != other["corpus"]
    shutil.rmtree(encoder)
    assert melo("calibrate", "--json", *few).json["other_readers"] == []


def test_a_project_by_radius_is_verified_from_then_on(
    here: Path, pico_gpt2: Path, write_recipe: Callable[..., None], melo: Melo
) -> None:
    write_recipe(here, "small", pico_gpt2, "custom")
    assert melo("edit", "small.yaml").code == 0
    asked = ("query", "What is the capital of France?", "--json")
    [before] = melo(*asked).json
    assert before["nearest"]["radius"] == 0.05
    assert melo("calibrate").code == 0
    [after] = melo(*asked).json
    assert (after["edited"], after["nearest"]["radius"]) == ("Paris", None)
    assert after["nearest"]["probability"] == 1.0
    run = melo("calibrate", "--set", "routing.scope=radius", "--set", "key.radius=0.05")
    assert (run.code, run.error.partition(":")[2].strip()) == (2, "only the rule verified is calibrated")
