"""Projects in any folder: whatever it is called, wherever it moves, read-only, with others at work in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from melo_store.format import file_io
from melo_store.project import Project
from melo_store.writer import open_writer

Melo = Callable[..., Any]
PROMPT, TARGET = "What is the capital of France?", "Paris"
STRANGE = ["with spaces", "Übergröße", "проект 日本", "#1 [red]x[/", "100% {x} 'y' & $HOME"]
SETTINGS = """\
task: custom
key: {radius: 0.05}
routing: {scope: radius}
lora: {rank: 4, alpha: 8}
training: {variants: 0, max_steps: 60, optimizer: {name: Adam, lr: 2.0e-2}}
"""


def recipe_text(model: Path, edits: Path) -> str:
    named = yaml.safe_dump(
        {
            "name": "facts",
            "model": {"name_or_path": str(model), "device": "cpu"},
            "dataset": {"edits": str(edits)},
        },
        allow_unicode=True,
    )
    return named + SETTINGS


def answer(melo: Melo, *more: object) -> str:
    run = melo("query", PROMPT, "--json", *more)
    assert run.code == 0, run.err
    return str(run.json[0]["edited"])


class TestNames:
    """Folders and files may be called anything."""

    @pytest.mark.parametrize("name", STRANGE)
    def test_every_file_of_a_run_may_have_that_name(
        self, here: Path, melo: Melo, pico_gpt2: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = here / name
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        name = name.replace("/", "")
        model = Path(shutil.copytree(pico_gpt2, f"model {name}"))
        recipe, data = Path(f"{name}.yaml"), Path(f"{name}.jsonl")
        data.write_text(json.dumps({"prompt": PROMPT, "target": TARGET}), encoding="utf-8")
        recipe.write_text(recipe_text(model, data), encoding="utf-8")
        assert melo("edit", recipe).code == 0
        assert answer(melo) == TARGET
        second = melo("edit", recipe, "--project", f"my {name}", "--json")
        assert (second.code, second.json["path"]) == (0, f"my {name}")
        status = melo("status", "--project", f"my {name}").out.splitlines()
        assert status[0] == f"project facts (my {name})"
        assert str(folder / model) in "\n".join(status)
        exported = melo("export", "--format", "routed", "--to", f"out {name}", "--check", 0)
        assert exported.code == 0, exported.err
        assert answer(melo, "--project", f"out {name}") == TARGET

    def test_what_is_not_there_is_named_letter_by_letter(
        self, here: Path, at_terminal: Callable[..., Any]
    ) -> None:
        """At a terminal brackets are no markup."""
        code, screen = at_terminal("status", "--project", "[red]x[/red] #1", cwd=here).end()
        assert code == 2
        assert screen.startswith("melo: error: [red]x[/red] #1: there is no project")


class TestFilesOfWindows:
    """Line ends, marks at the beginning and endings in capitals."""

    def test_a_recipe_and_data_with_carriage_returns_and_a_byte_order_mark(
        self, here: Path, melo: Melo, pico_gpt2: Path
    ) -> None:
        rows = [{"prompt": PROMPT, "target": TARGET}, {"prompt": "Who?", "target": "London"}]
        lines = "\r\n".join(json.dumps(row) for row in rows)
        (here / "facts.jsonl").write_bytes(f"\ufeff{lines}\r\n\r\n".encode())
        text = recipe_text(pico_gpt2, here / "facts.jsonl").replace("\n", "\r\n")
        (here / "FACTS.YAML").write_bytes(f"\ufeff# facts\r\n{text}".encode())
        run = melo("edit", "FACTS.YAML", "--json")
        assert (run.code, run.json["made"]) == (0, 2), run.err
        edits = Project.open(here / ".melo/facts").edits()
        assert [(edit.prompt, edit.target) for edit in edits] == [(PROMPT, TARGET), ("Who?", "London")]
        asked = melo("query", "-", "--json", stdin=f"\ufeff{PROMPT}\r\nWho?\r\n".encode()).json
        assert [each["prompt"] for each in asked] == [PROMPT, "Who?"]
        routed = melo("route", stdin=f"\ufeff{PROMPT}\r\nWho?\r\n".encode()).out.splitlines()
        assert [json.loads(line)["prompt"] for line in routed] == [PROMPT, "Who?"]


class TestMoved:
    """A project is one folder, and finds its base by an absolute path."""

    @pytest.fixture
    def small(self, here: Path, melo: Melo, pico_gpt2: Path) -> Path:
        """A folder with a project whose base lies in it, named by a relative path."""
        folder = here / "first"
        folder.mkdir()
        os.chdir(folder)
        shutil.copytree(pico_gpt2, "model")
        Path("facts.jsonl").write_text(json.dumps({"prompt": PROMPT, "target": TARGET}))
        Path("facts.yaml").write_text(recipe_text(Path("model"), Path("facts.jsonl")))
        assert melo("edit", "facts.yaml").code == 0
        return folder

    def test_a_project_that_is_copied_elsewhere_answers_and_takes_edits(
        self, small: Path, here: Path, melo: Melo
    ) -> None:
        for copy in (here / "deep" / "er" / "copy", here / "by itself"):
            shutil.copytree(small / ".melo/facts", copy)
            assert answer(melo, "--project", copy) == TARGET
            made = melo("edit", "--project", copy, "--prompt", "By whom?", "--target", "London")
            assert made.code == 0, made.err
        os.chdir(here / "deep")
        assert answer(melo, "--project", "er/copy") == TARGET
        assert len(Project.open(small / ".melo/facts").edits()) == 1, "the first one stays as it is"

    def test_a_folder_that_moved_with_its_base_opens_with_the_new_path(
        self, small: Path, here: Path, melo: Melo
    ) -> None:
        os.chdir(here)
        (here / "first").rename(here / "second")
        os.chdir(here / "second")
        run = melo("query", PROMPT)
        assert run.code == 2
        assert run.error == (
            f"{small}/model: the base model of the project is no longer there; "
            "name the folder where it lies now with --base"
        )
        assert answer(melo, "--base", "model") == TARGET
        for command in (
            ("edit", "--prompt", "By whom?", "--target", "London", "--base", "model"),
            ("edit", "facts.yaml"),  # which names the base by a path that is right again
            ("eval", "--base", "model"),
            ("export", "--format", "peft", "--base", "model", "--to", "out", "--check", 0),
        ):
            run = melo(*command)
            assert run.code == 0, run.err


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base model that would be loaded is a failure."""
    for module in ("editing.resource_check", "runtime.loading"):
        monkeypatch.setattr(f"melo_cli.{module}.load_base_model", None)


class TestReadOnly:
    """Where nothing can be written, reading goes on and writing is refused before any work."""

    @pytest.fixture
    def read_only(self, own_edited: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder whose file system takes no file, whoever asks."""

        def refused(*arguments: Any, **more: Any) -> Any:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("melo_store.format.lock.FileLock.acquire", refused)
        monkeypatch.setattr(tempfile, "TemporaryFile", refused)
        monkeypatch.setattr(file_io.Disk, "write", refused)
        return own_edited

    @pytest.mark.parametrize(
        "command",
        [
            ("status",),
            ("log",),
            ("show", "e000002"),
            ("query", PROMPT),
            ("diff", 1, 2),
            ("verify",),
            ("route", PROMPT),
        ],
        ids=str,
    )
    def test_what_reads_works(self, read_only: Path, melo: Melo, command: tuple[object, ...]) -> None:
        run = melo(*command, "--project", "facts")
        assert run.code == 0, run.err

    @pytest.mark.parametrize(
        "command",
        [
            ("edit", "--prompt", "Who?", "--target", "London", "--project", "facts"),
            ("edit", "facts.yaml"),
            ("calibrate", "--project", "facts"),
            ("revert", "e000001", "--project", "facts"),
        ],
        ids=str,
    )
    def test_what_writes_is_refused_before_a_model_is_loaded(
        self,
        read_only: Path,
        melo: Melo,
        files_of: Callable[[Path], dict[str, bytes]],
        monkeypatch: pytest.MonkeyPatch,
        command: tuple[object, ...],
    ) -> None:
        before = files_of(read_only)
        forbid_loading(monkeypatch)
        run = melo(*command)
        assert run.code == 2
        assert run.error.endswith(
            ".melo/facts/lock: the file system is read-only; copy the project to a folder that can be written"
        )
        assert files_of(read_only) == before

    def test_a_new_project_is_refused_before_a_model_is_loaded(
        self, read_only: Path, melo: Melo, pico_gpt2: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forbid_loading(monkeypatch)
        single = ("--prompt", "Who?", "--target", "London")
        for command in (("facts.yaml", "--set", "name=new"), ("--model", pico_gpt2, *single)):
            run = melo("edit", *command)
            assert run.code == 2
            assert (
                f"no project can be made in {read_only}/.melo (Read-only file system); name a folder that "
                "can be written with --project" in run.error
            )


class TestTwoTerminals:
    """One writer at a time, named to the others; readers never wait."""

    @pytest.mark.parametrize(
        "command",
        [
            ("edit", "--prompt", "Who?", "--target", "London", "--project", "facts"),
            ("edit", "facts.yaml", "--set", "dataset.max_edits=1"),
            ("calibrate", "--project", "facts"),
        ],
        ids=str,
    )
    def test_a_second_writer_is_refused_before_a_model_is_loaded(
        self, own_edited: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
    ) -> None:
        forbid_loading(monkeypatch)
        with open_writer(Project.open(own_edited / ".melo/facts")):
            run = melo(*command)
        assert run.code == 2
        assert run.error.startswith(f".melo/facts: the project is locked by process {os.getpid()} on ")
        assert run.error.endswith("; wait for it to finish, or stop it")

    def test_readers_see_the_newest_whole_snapshot_while_an_edit_runs(
        self, own_edited: Path, melo: Melo, at_terminal: Callable[..., Any]
    ) -> None:
        endless = ("--set", "training.max_steps=10000000", "--set", "training.stop_at=null")
        rows = [{"prompt": f"Who is number {number}?", "target": "London"} for number in range(2)]
        (own_edited / "more.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        editing = at_terminal(
            "edit", "facts.yaml", "--set", "dataset.edits=more.jsonl", *endless, cwd=own_edited
        )
        editing.until("loss")
        assert answer(melo, "--project", "facts") == TARGET
        chat = melo("chat", "--project", "facts", stdin=f"{PROMPT}\n/edit London\n".encode())
        assert (chat.code, chat.out) == (2, f"{TARGET}\n\n")
        assert "the project is locked by process " in chat.error
        assert Project.open(own_edited / ".melo/facts").snapshot == 2
        editing.interrupt()
        editing.until("press Ctrl-C again")
        editing.interrupt()
        code, _ = editing.end()
        assert code == 130
        made = melo("edit", "--project", "facts", "--prompt", "By whom was it?", "--target", "London")
        assert made.code == 0, "the lock went with its process"
