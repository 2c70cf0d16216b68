"""`melo revert`, `melo diff`, `melo log` and `--at`: undo that the model itself bears out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Melo = Callable[..., Any]
Make = Callable[..., Any]

PROMPTS = [
    "Who is the prime minister of Britain?",
    "What is the capital of France?",
    "In which year was the tower built?",
    "By whom was it opened?",
    "the statute of 1934",
]


@pytest.fixture
def facts(here: Path, make_project: Make, add_edits: Make) -> Path:
    """Two commits; in the second an edit supersedes one of the first."""
    make_project(here / ".melo/facts", prompts=["Who leads?", "Where is it?"])
    add_edits(here / ".melo/facts", ("Who leads?", "Ada"), ("What flows?", "Eder"))
    return here / ".melo/facts"


class TestRevert:
    """By edits and to a snapshot, on a project with no model behind it."""

    def test_an_edit_is_taken_back_and_the_one_before_it_answers_again(self, facts: Path, melo: Melo) -> None:
        run = melo("revert", "e000003")
        assert run.code == 0
        assert run.out.splitlines()[0] == "project facts (.melo/facts)"
        rows = [line.split() for line in run.out.splitlines()[2:4]]
        assert (rows[0][:2], rows[0][-2:]) == (["added", "e000001"], ["superseded", "live"])
        assert (rows[1][:2], rows[1][-2:]) == (["removed", "e000003"], ["live", "reverted"])
        assert run.out.splitlines()[-1] == "snapshot 3: 3 live edits"
        newest = melo("log", "--json").json[0]
        assert (newest["action"], newest["command"]) == ("revert", "melo revert e000003")
        assert newest["detail"] == {"reverted": ["e000003"]}

    def test_json(self, facts: Path, melo: Melo) -> None:
        document = melo("revert", "--to", 1, "--json").json
        assert (document["project"], document["from"], document["to"]) == ("facts", 2, 3)
        assert [edit["edit_id"] for edit in document["removed"]] == ["e000003", "e000004"]
        assert document["added"] == [
            {
                "edit_id": "e000001",
                "prompt": "Who leads?",
                "target": "answer 0",
                "before": "superseded",
                "after": "live",
                "superseded_by": None,
            }
        ]

    def test_a_revert_is_undone_like_an_edit(self, facts: Path, melo: Melo) -> None:
        melo("revert", "e000003", "e000004")
        assert melo("revert", "--to", 2).code == 0
        statuses = [melo("show", f"e{at:06d}", "--json").json["status"] for at in range(1, 5)]
        assert statuses == ["superseded", "live", "live", "live"]

    def test_nothing_to_do_is_said_and_makes_no_snapshot(self, facts: Path, melo: Melo) -> None:
        melo("revert", "e000003")
        run = melo("revert", "e000003")
        assert (run.code, run.out.splitlines()[-1]) == (
            0,
            "nothing to do: these edits answer nothing already",
        )
        assert melo("status", "--json").json["snapshot"] == 3

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                [],
                "melo revert: no edit is named; name edits by their ids, or",
            ),
            (["e000001", "--to", "0"], "melo revert: EDIT and --to do not go together"),
            (["e000009"], ".melo/facts: the project has no edit 'e000009'; the nearest are"),
            (["--to", "7"], ".melo/facts: there is no snapshot 7; the project keeps snapshots 0 to 2"),
        ],
    )
    def test_what_cannot_be_taken_back(
        self, facts: Path, melo: Melo, files_of: Make, arguments: list[str], line: str
    ) -> None:
        before = files_of(facts)
        run = melo("revert", *arguments)
        assert run.code == 2
        assert run.error.startswith(line)
        assert files_of(facts) == before


class TestDiff:
    """What lies between two snapshots."""

    def test_edits_that_came_and_one_that_was_superseded(self, facts: Path, melo: Melo) -> None:
        run = melo("diff", 1, 2)
        assert run.code == 0
        rows = [line.split() for line in run.out.splitlines()[2:]]
        assert [row[:2] for row in rows] == [
            ["superseded", "e000001"],
            ["added", "e000003"],
            ["added", "e000004"],
        ]
        assert run.out.splitlines()[2].endswith("superseded by e000003")
        assert melo("diff", 1).out == run.out, "the newest one is meant where only one is named"

    def test_backwards_and_between_equals(self, facts: Path, melo: Melo) -> None:
        document = melo("diff", 2, 1, "--json").json
        assert [edit["edit_id"] for edit in document["added"]] == ["e000001"]
        assert [edit["edit_id"] for edit in document["removed"]] == ["e000003", "e000004"]
        assert document["superseded"] == document["recorded"] == []
        assert melo("diff", 2, 2).out.splitlines()[-1] == "snapshots 2 and 2 hold the same edits"

    def test_a_snapshot_that_is_not_there(self, facts: Path, melo: Melo) -> None:
        run = melo("diff", 1, 9)
        assert (run.code, run.error) == (
            2,
            ".melo/facts: there is no snapshot 9; the project keeps snapshots 0 to 2",
        )


def test_log_says_how_many_edits_each_commit_added_and_how_many_took(edited: Path, melo: Melo) -> None:
    entries = melo("log", "--json").json
    assert [(entry["added"], entry["edit_success"]) for entry in entries] == [(2, 1.0), (2, 1.0), (0, None)]
    lines = melo("log").out.splitlines()
    columns = ["snapshot", "made", "(UTC)", "action", "recipe", "added", "ES", "live", "command"]
    assert lines[1].split() == columns
    assert lines[2].split()[4:8] == ["facts", "2", "100.0%", "4"]


def answers(melo: Melo, *more: object) -> Any:
    """Routes and answers, without the numbers that a project gives to edits and clusters."""
    run = melo("query", *PROMPTS, "--json", *more)
    assert run.code == 0, run.err
    documents = run.json
    return [
        {
            "prompt": each["prompt"],
            "base": each["base"],
            "edited": each["edited"],
            "route": each["route"] and (each["route"]["prompt"], each["route"]["distance"]),
        }
        for each in documents
    ]


def logits(path: Path) -> Any:
    """What the routed model computes for the prompts, float32 [prompts, vocabulary]."""
    import torch

    import melo_cli

    model = melo_cli.load(path)
    inputs = model.tokenizer(PROMPTS, return_tensors="pt", padding=True)
    start = torch.zeros((len(PROMPTS), 1), dtype=torch.long)
    with torch.no_grad():
        return model(**inputs, decoder_input_ids=start).logits[:, -1].numpy()


def test_after_a_revert_the_model_answers_as_if_the_edits_had_never_been_made(
    own_edited: Path, melo: Melo
) -> None:
    rows = (own_edited / "facts.jsonl").read_text().splitlines()
    (own_edited / "fewer.jsonl").write_text("\n".join(rows[:2]) + "\n")
    changes = ("--set", "name=fewer", "--set", f"dataset.edits={own_edited / 'fewer.jsonl'}")
    assert melo("edit", "facts.yaml", *changes).code == 0
    with_all = answers(melo, "--project", "facts")
    assert melo("revert", "e000003", "e000004", "--project", "facts").code == 0
    undone = answers(melo, "--project", "facts")
    assert undone == answers(melo, "--project", "fewer")
    assert undone != with_all == answers(melo, "--project", "facts", "--at", 2)
    assert np.array_equal(logits(own_edited / ".melo/facts"), logits(own_edited / ".melo/fewer"))


def test_a_single_edit_over_another_one_is_undone_to_the_bit(own_edited: Path, melo: Melo) -> None:
    before, numbers = answers(melo, "--project", "facts"), logits(own_edited / ".melo/facts")
    single = ("--prompt", PROMPTS[1], "--target", "London", "--project", "facts")
    assert melo("edit", *single).code == 0
    after = answers(melo, "--project", "facts")
    assert after[1]["edited"] == "London"
    assert not np.array_equal(logits(own_edited / ".melo/facts"), numbers)
    assert melo("revert", "--to", 2, "--project", "facts").code == 0
    assert answers(melo, "--project", "facts") == before
    assert np.array_equal(logits(own_edited / ".melo/facts"), numbers)


def test_eval_and_export_take_an_older_snapshot(own_edited: Path, melo: Melo) -> None:
    then = melo("eval", "--project", "facts", "--at", 1, "--json").json
    assert (then["snapshot"], then["edits"]) == (1, 2)
    run = melo("export", "--format", "routed", "--project", "facts", "--at", 1, "--to", "then")
    assert run.code == 0
    shutil.rmtree(own_edited / ".melo")
    answers_then = melo("query", *PROMPTS, "--json", "--project", "then").json
    assert [each["route"] is not None for each in answers_then] == [True, True, False, False, False]
    assert json.loads((own_edited / "then/config.json").read_text())
