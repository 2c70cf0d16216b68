"""`melo query`: routes and answers, for people, pipes and programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Melo = Callable[..., Any]

EDITED = "What is the capital of France?"
UNRELATED = "the statute of 1934"


def test_an_edited_prompt_shows_its_edit_and_both_answers(edited: Path, melo: Melo) -> None:
    run = melo("query", EDITED)
    assert run.code == 0
    base = melo("query", EDITED, "--at", 0, "--json").json[0]["base"]
    assert run.out == (
        "project facts (.melo/facts)\n"
        f"prompt  {EDITED}\n"
        f'route   e000002 "{EDITED}", cluster 2, distance 0, radius 0.05\n'
        f"base    {base}\n"
        "edited  Paris\n"
        "\n"
    )


def test_a_prompt_outside_every_scope_shows_the_nearest_edit_that_did_not_fire(
    edited: Path, melo: Melo
) -> None:
    run = melo("query", UNRELATED)
    lines = dict(line.split(None, 1) for line in run.out.splitlines()[1:] if line)
    assert lines["route"] == "base"
    assert lines["nearest"].startswith("e00000")
    assert lines["nearest"].endswith(", radius 0.05: did not fire")
    assert lines["edited"] == lines["base"]


def test_json_has_the_published_names(edited: Path, melo: Melo) -> None:
    fired, base = melo("query", EDITED, UNRELATED, "--json").json
    assert {"prompt", "route", "nearest", "base", "edited"} <= set(fired)
    assert (fired["prompt"], fired["edited"]) == (EDITED, "Paris")
    assert {"edit_id", "block", "cluster", "distance", "radius"} <= set(fired["route"])
    assert (fired["route"]["edit_id"], fired["route"]["block"]) == ("e000002", "b000001")
    assert fired["route"] == fired["nearest"]
    assert base["route"] is None
    assert base["nearest"]["distance"] > base["nearest"]["radius"]


def test_lines_of_stdin(edited: Path, melo: Melo) -> None:
    run = melo("query", "-", "--json", stdin=f"{EDITED}\n\n  {UNRELATED}\r\n".encode())
    assert [answer["prompt"] for answer in run.json] == [EDITED, UNRELATED]


def test_a_longer_or_shorter_answer(edited: Path, melo: Melo) -> None:
    (short,) = melo("query", UNRELATED, "--max-new-tokens", 1, "--json").json
    (long,) = melo("query", UNRELATED, "--max-new-tokens", 6, "--json").json
    assert len(short["base"]) < len(long["base"])


def test_an_older_snapshot_answers_as_it_did(edited: Path, melo: Melo) -> None:
    prompt = "By whom was it opened?"
    assert melo("query", prompt, "--at", 2, "--json").json[0]["edited"] == "John Smith"
    assert melo("query", prompt, "--at", 1, "--json").json[0]["route"] is None
    empty = melo("query", prompt, "--at", 0)
    assert "route   base (the project holds no edit that routes)" in empty.out.splitlines()


def test_a_project_is_named_or_chosen_and_always_said(edited: Path, melo: Melo) -> None:
    run = melo("query", "By whom was it opened?", "--project", "cases")
    assert run.out.splitlines()[0] == "project cases (.melo/cases)"
    assert run.out.splitlines()[-2] == "edited  tax"
    assert "melo: project cases (.melo/cases)\n" in melo("query", "a", "--project", "cases", "--json").err


def test_a_base_that_has_moved(own_edited: Path, melo: Melo, pico_t5: Path, pico_bert: Path) -> None:
    shutil.copytree(pico_t5, own_edited / "moved")
    assert melo("query", EDITED, "--base", "moved", "--json").json[0]["edited"] == "Paris"
    run = melo("query", EDITED, "--base", pico_bert)
    assert run.code == 2
    assert "another" in run.error


def test_at_a_terminal_answers_stand_beside_each_other_within_80_columns(
    edited: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    monkeypatch.setenv("TERM", "dumb")  # one without colours
    monkeypatch.setenv("COLUMNS", "80")
    lines = melo("query", EDITED).out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert any("╭" in line for line in lines)
    heading = next(line for line in lines if "base" in line and "edited" in line)
    answers = lines[lines.index(heading) + 2]
    assert answers.index("Paris") == heading.index("edited")


@pytest.mark.parametrize("prompt", [" ", "What is it? " * 100], ids=["empty", "too long"])
def test_a_prompt_that_cannot_be_asked(edited: Path, melo: Melo, prompt: str) -> None:
    run = melo("query", prompt, "--project", "cases")
    assert run.code == 2
    assert "the prompt" in run.error


def test_answers_edits_and_evaluations_wait_for_neither_peft_nor_matplotlib(
    own_edited: Path, environment: Callable[..., dict[str, str]]
) -> None:
    edit = ["edit", "--prompt", "Who was born in Köln?", "--target", "John", "--project", ".melo/facts"]
    code = (
        "import sys\nfrom melo_cli.app import main\n"
        f"assert [main(line) for line in (['query', {EDITED!r}], {edit}, ['eval'])] == [0, 0, 0]\n"
        "assert 'torch' in sys.modules\n"
        "assert not {'peft', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=own_edited, env=environment(), check=True, timeout=120)


def test_garbage_collection_never_visits_the_objects_of_libraries_and_model(
    edited: Path, environment: Callable[..., dict[str, str]]
) -> None:
    code = (
        "import gc\nfrom melo_cli.app import main\n"
        "def collections(): return sum(generation['collections'] for generation in gc.get_stats()[1:])\n"
        f"before, code = collections(), main(['query', {EDITED!r}])\n"
        "assert code == 0 and gc.isenabled()\n"
        "print('DONE', collections() - before, len(gc.get_objects()), gc.get_freeze_count())\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    collections, still_watched, frozen = map(int, done.stdout.rpartition("DONE ")[2].split())
    assert collections < 20, "it is 80 with garbage collection on from the beginning"
    assert still_watched < frozen / 10
