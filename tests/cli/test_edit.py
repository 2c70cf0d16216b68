"""`melo edit`: from a recipe or a prompt to a project that holds the edits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_store.project import Project

Melo = Callable[..., Any]


def field_values(text: str) -> dict[str, str]:
    """The named lines of a table of fields."""
    pairs = (line.partition("  ") for line in text.splitlines())
    return {name: value.strip() for name, gap, value in pairs if gap}


@pytest.fixture
def gpt2(here: Path, write_recipe: Callable[..., None], pico_gpt2: Path) -> Path:
    """A folder with `small.yaml`: four edits of a GPT-2 in two batches."""
    write_recipe(here, "small", pico_gpt2, "custom")
    return here


def test_a_recipe_makes_a_project_and_goes_on_with_it(gpt2: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml", "--set", "dataset.max_edits=2")
    assert run.code == 0
    assert run.out.splitlines()[0] == "project small (.melo/small)"
    first = field_values(run.out)
    assert (first["made"], first["failed"], first["already right"], first["snapshot"]) == ("2", "0", "0", "1")
    assert first["store"].endswith("kB")
    assert float(first["seconds"]) > 0
    assert "melo: editing: 2/2 edits" in run.err
    assert "solved 100%" in run.err

    second = field_values(melo("edit", "small.yaml").out)
    assert (second["made"], second["in the project before"], second["snapshot"]) == ("2", "2", "2")
    assert [edit.prompt for edit in Project.open(gpt2 / ".melo/small").edits()] == [
        "Who is the prime minister of Britain?",
        "What is the capital of France?",
        "In which year was the tower built?",
        "By whom was it opened?",
    ]
    assert Project.open(gpt2 / ".melo/small").info.command == "melo edit small.yaml"


def test_json_lists_every_edit_and_leaves_stdout_clean(gpt2: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml", "--json")
    assert run.code == 0
    document = run.json
    assert document["project"] == "small"
    assert (document["made"], document["failed"], document["left"]) == (4, 0, 0)
    assert document["edits_per_second"] > 0
    assert document["edits"][3].pop("before") != "John Smith"
    assert document["edits"][3] == {
        "edit_id": "e000004",
        "status": "solved",
        "prompt": "By whom was it opened?",
        "target": "John Smith",
        "answer": "John Smith",
        "contradicts": None,
    }
    assert "melo: project small (.melo/small)" in run.err


def test_edits_that_fail_are_listed_with_what_to_try(gpt2: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml", "--set", "training.max_steps=1", "--set", "training.retries=0")
    assert run.code == 1
    assert field_values(run.out)["failed"] == "4"
    table = run.out.partition("\nfailed\n")[2].splitlines()
    assert table[0].split("  ")[0] == "edit"
    assert table[1].startswith("e000001  Who is the prime minister of Britain?  London")
    advice = " ".join(table[-2:])
    assert "training.max_steps" in advice
    assert "lora.rank" in advice
    assert "training.batch_size" in advice


def test_a_single_edit_goes_to_the_present_project(own_edited: Path, melo: Melo) -> None:
    run = melo("edit", "--prompt", "What is the capital of France?", "--target", "law", "--subject", "France")
    assert run.code == 0
    assert run.out.splitlines()[0] == "project facts (.melo/facts)"
    assert (field_values(run.out)["edit"], field_values(run.out)["supersedes"]) == (
        "e000005, made",
        "e000002",
    )
    newest = Project.open(own_edited / ".melo/facts").edits()[-1]
    assert (newest.target, newest.record.subject, newest.status) == ("law", "France", "live")
    assert melo("query", "What is the capital of France?", "--json").json[0]["edited"] == "law"


def test_a_recipe_by_the_name_of_one_that_comes_with_melo(here: Path, melo: Melo) -> None:
    run = melo("edit", "zsre_t5small", "--set", "dataset.edits=mine.jsonl")
    assert run.code == 2
    assert run.error.startswith("mine.jsonl: no such file")
    assert run.out == "project zsre_t5small (.melo/zsre_t5small)\n"


def test_one_interrupt_stops_after_the_batch_in_hand_and_the_same_command_goes_on(
    gpt2: Path, melo: Melo, environment: Callable[..., dict[str, str]]
) -> None:
    command = ("edit", "small.yaml", "--set", "training.batch_size=1", "--set", "training.max_steps=150")
    process = subprocess.Popen(
        [sys.executable, "-m", "melo_cli", *command],
        cwd=gpt2,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (gpt2 / ".melo/small/snapshots/000001.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "melo: stopping after the batch in hand; press Ctrl-C again to abort at once" in err
    made, left = int(field_values(out)["made"]), int(field_values(out)["still to do"])
    assert (made + left, left > 0) == (4, True)
    assert f"stopped with {left} edits to go; the same command goes on where it stopped" in err
    assert len(Project.open(gpt2 / ".melo/small").edits()) == made

    run = melo(*command)
    assert run.code == 0, run.err
    assert field_values(run.out)["made"] == str(left)
    assert len(Project.open(gpt2 / ".melo/small").edits()) == 4


def test_a_second_interrupt_aborts_at_once_and_keeps_what_was_committed(
    gpt2: Path, melo: Melo, at_terminal: Callable[..., Any]
) -> None:
    assert melo("edit", "small.yaml", "--set", "dataset.max_edits=1").code == 0
    # A batch that would take hours, so that nothing but an abort can end it.
    endless = ("--set", "training.max_steps=10000000", "--set", "training.stop_at=null")
    running = at_terminal("edit", "small.yaml", *endless, cwd=gpt2)
    running.until("loss")
    running.interrupt()
    running.until("press Ctrl-C again to abort at once")
    running.interrupt()
    code, shown = running.end()
    assert code == 130
    assert "0/3 edits" in shown
    assert "aborted: the batch in hand is lost, those before it are kept; the same command goes on" in shown
    assert "Traceback" not in shown
    assert len(Project.open(gpt2 / ".melo/small").edits()) == 1


def test_a_second_interrupt_that_a_library_turns_into_an_error_aborts_too(
    gpt2: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("the workers are gone") from None

    monkeypatch.setattr("melo_cli.editing.edit_dataset", interrupted)
    run = melo("edit", "small.yaml")
    assert run.code == 130
    assert "aborted: the batch in hand is lost" in run.err
    assert "the workers are gone" not in run.err


def test_the_interrupt_handler_is_put_back(gpt2: Path, melo: Melo) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert (
        melo("edit", "small.yaml", "--set", "dataset.max_edits=1", "--set", "training.max_steps=1").code == 1
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert melo("edit", "small.yaml", "--set", "dataset.edits=nope.jsonl").code == 2
    assert signal.getsignal(signal.SIGINT) is before
