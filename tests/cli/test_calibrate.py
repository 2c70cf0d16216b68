"""`melo calibrate`, and the calibration that `melo edit` makes: what they say about the key they chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.project import Project

Melo = Callable[..., Any]


@pytest.fixture
def small(here: Path, write_recipe: Callable[..., None], pico_gpt2: Path) -> Path:
    """A folder with `small.yaml`: four edits of a GPT-2 without rephrases."""
    facts = {
        "What is the capital of France?": "Paris",
        "In which year was the tower built?": "1889",
        "By whom was it opened?": "John Smith",
        "Who is the prime minister of Britain?": "London",
    }
    edits = [{"prompt": prompt, "target": target} for prompt, target in facts.items()]
    write_recipe(here, "small", pico_gpt2, "custom", edits)
    return here


def test_the_sweep_is_shown_and_made_rephrases_are_said_to_teach_less(small: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml", "--set", "key.radius=auto")
    assert run.code == 0
    assert run.out.splitlines()[1].split() == [
        *("layer", "pooling", "key", "radius", "reach", "most", "unrel.", "hard", "same")
    ]
    assert "the data give no rephrases, and made ones teach less" in " ".join(run.out.split())
    assert max(len(line) for line in run.out.splitlines()) <= 80
    assert (small / ".melo/small/calibration.png").is_file()


def test_a_project_is_calibrated_on_demand_in_one_commit(small: Path, melo: Melo) -> None:
    assert melo("edit", "small.yaml").code == 0
    before = Project.open(small / ".melo/small").snapshot
    run = melo("calibrate", "--json")
    assert run.code == 0
    document = run.json
    after = Project.open(small / ".melo/small")
    assert after.snapshot == before + 1
    assert after.recipe["key"]["radius"] == document["key"]["radius"]
    assert (document["rephrases"], document["anchors"]) == ("made", 4)
    assert document["chosen"]["reach"] <= document["chosen"]["nearest_right"]
    [answer] = melo("query", "What is the capital of France?", "--json").json
    assert answer["edited"] == "Paris"
