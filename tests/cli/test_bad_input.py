"""What users hand in that cannot work: exit code 2, one line that says what and where, nothing changed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_store.format import file_io
from melo_store.project import Project
from melo_store.writer import open_writer

Melo = Callable[..., Any]
FilesOf = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def gpt2(here: Path, write_recipe: Callable[..., None], pico_gpt2: Path) -> Path:
    """A folder with `small.yaml` for a GPT-2, and no project yet."""
    write_recipe(here, "small", pico_gpt2, "custom")
    return here


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            "training.maxsteps=3",
            "small.yaml: training.maxsteps (--set): unknown key, did you mean training.max_steps?",
        ),
        ("training.max_steps=many", 'training.max_steps (--set): must be a whole number, found "many"'),
        ("key.radius=-1", "key.radius (--set): must be auto or a number above 0, found -1"),
        ("training", "--set training: has no value; write --set section.key=value"),
        (
            "training.optimizer.name=Adm",
            "training.optimizer.name: Adm is not a class of PyTorch that a recipe can use",
        ),
        ("training.optimizer.speed=1", "training.optimizer: Adam does not take these arguments"),
        (
            "training.lr_scheduler.name=StepLr",
            "StepLr is not a class of PyTorch that a recipe can use; did you mean StepLR?",
        ),
        ("dataset.edits=nope.jsonl", "nope.jsonl: no such file"),
        ("model.name_or_path=./nope", "./nope: there is no such folder; check model.name_or_path"),
        ("model.name_or_path=.", ".: the config of the model cannot be loaded"),
        (
            "task=scotus",
            "the model is a decoder-only language model, but task scotus needs a sequence classifier",
        ),
        (
            "lora.target_modules=[h.9.mlp.c_fc]",
            "the model has no module 'h.9.mlp.c_fc'; did you mean transformer.h.",
        ),
        ("lora.target_modules=[transformer.wte]", "blocks can only add to Linear and Conv1D"),
        ("key.layer=transformer.h.3.mlp.c_proj", "does not run before target transformer.h.2.mlp.c_fc"),
        ("model.template=chat", "the tokenizer has no chat template"),
        ("dataset.format=nq", "small.jsonl:1: is not a row of the format nq"),
    ],
    ids=lambda value: value if "=" in value and " " not in value else "",
)
def test_a_recipe_that_does_not_fit(
    gpt2: Path, melo: Melo, files_of: FilesOf, change: str, line: str
) -> None:
    before = files_of(gpt2)
    run = melo("edit", "small.yaml", "--set", change)
    assert run.code == 2
    assert line in run.error
    assert files_of(gpt2) == before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"name: x\ntask zsre\n", "bad.yaml:"),
        (b"- a\n", "bad.yaml: holds a list"),
        (b"", "bad.yaml: is empty"),
        (b"name: caf\xe9\n", "bad.yaml:1: is not UTF-8"),
        (b"name: x\ntask: zsre\n", "model.name_or_path: is missing"),
    ],
    ids=["no YAML", "list", "empty", "not UTF-8", "half"],
)
def test_a_file_that_is_no_recipe(here: Path, melo: Melo, content: bytes, line: str) -> None:
    (here / "bad.yaml").write_bytes(content)
    run = melo("edit", "bad.yaml")
    assert run.code == 2
    assert line in run.error


def test_no_such_recipe(here: Path, melo: Melo) -> None:
    run = melo("edit", "nope.yaml")
    assert (run.code, run.error.partition(";")[0]) == (2, "nope.yaml: no such file")


GOOD = b'{"prompt": "Who?", "target": "He"}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (GOOD + b'{"prompt": \n', "data.jsonl:2:"),
        (GOOD + b'{"prompt": "Why?"}\n', 'data.jsonl:2: lacks the field "target"'),
        (GOOD + b'{"prompt": " ", "target": "t"}\n', "data.jsonl:2: prompt is empty"),
        (GOOD + b'{"prompt": "p", "target": ""}\n', "data.jsonl:2: target is empty"),
        (GOOD + b'{"prompt": "caf\xe9", "target": "t"}\n', "data.jsonl:2: is not UTF-8"),
        (GOOD + b"[1, 2]\n", "data.jsonl:2: is a list"),
        (b"", "data.jsonl: holds no rows"),
        (GOOD + json.dumps({"prompt": "What? " * 200, "target": "t"}).encode(), "the model takes 128"),
    ],
    ids=["no JSON", "no target", "no prompt", "no answer", "not UTF-8", "list", "empty", "too long"],
)
def test_data_that_are_no_edits(gpt2: Path, melo: Melo, files_of: FilesOf, content: bytes, line: str) -> None:
    (gpt2 / "data.jsonl").write_bytes(content)
    before = files_of(gpt2)
    run = melo("edit", "small.yaml", "--set", "dataset.edits=data.jsonl")
    assert run.code == 2
    assert line in run.error
    assert files_of(gpt2) == before


def test_a_single_edit_that_the_model_cannot_take(own_edited: Path, melo: Melo, files_of: FilesOf) -> None:
    before = files_of(own_edited)
    run = melo("edit", "--project", "cases", "--prompt", "Who?", "--target", "felony")
    assert (run.code, run.error) == (
        2,
        "target: 'felony' is not a class of the model; its classes are civil, criminal, tax",
    )
    run = melo("edit", "--project", "facts", "--prompt", "Who? " * 200, "--target", "me")
    assert run.code == 2
    assert files_of(own_edited) == before


def test_a_project_of_another_base_or_task(
    own_edited: Path, melo: Melo, files_of: FilesOf, pico_bert: Path
) -> None:
    before = files_of(own_edited)
    run = melo("edit", "facts.yaml", "--project", "cases")
    assert run.code == 2
    assert "differs in config" in run.error
    run = melo("edit", "cases.yaml", "--set", "task=custom")
    assert run.code == 2
    assert "task is 'custom', but the project's edits were made with 'scotus'" in run.error
    run = melo("query", "Who?", "--project", "facts", "--base", pico_bert)
    assert run.code == 2
    assert files_of(own_edited) == before


def in_every_command(melo: Melo) -> list[Any]:
    """Runs of every command that reads a project."""
    return [
        melo("status"),
        melo("log"),
        melo("show", "e000001"),
        melo("query", "Who?"),
        melo("eval"),
        melo("export", "--format", "peft"),
        melo("edit", "--prompt", "Who?", "--target", "He"),
        melo("edit", "facts.yaml"),
    ]


def test_a_project_of_a_newer_format(own_edited: Path, melo: Melo, files_of: FilesOf) -> None:
    from melo_store.format import documents

    path = own_edited / ".melo/facts/manifest.json"
    document = json.loads(path.read_text())
    document |= {"format": documents.FORMAT + 1, "needs": "9.9.9"}
    document["check"] = documents._check(document)
    path.write_text(json.dumps(document))
    before = files_of(own_edited)
    for run in in_every_command(melo):
        assert run.code == 2
        assert "install melo 9.9.9 or newer" in run.error
    assert files_of(own_edited) == before


def test_a_damaged_project(own_edited: Path, melo: Melo, files_of: FilesOf) -> None:
    path = own_edited / ".melo/facts/manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    before = files_of(own_edited)
    for run in in_every_command(melo):
        assert run.code == 2
        assert ".melo/facts/manifest.json: melo did not write this content" in run.error
    assert files_of(own_edited) == before


def test_a_missing_file_of_a_project(own_edited: Path, melo: Melo) -> None:
    (own_edited / ".melo/facts/edits/000001.arrow").unlink()
    for run in (melo("show", "e000001"), melo("query", "Who?"), melo("edit", "facts.yaml")):
        assert run.code == 2
        assert ".melo/facts/edits/000001.arrow" in run.error


def test_a_project_that_is_being_written(own_edited: Path, melo: Melo, files_of: FilesOf) -> None:
    with open_writer(Project.open(own_edited / ".melo/facts")):
        run = melo("edit", "--prompt", "Who?", "--target", "He")
        assert run.code == 2
        assert f"the project is locked by process {os.getpid()} on " in run.error
        assert melo("query", "Who?").code == 0
    assert melo("log", "--json").json[0]["snapshot"] == 2


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the command again"),
        (errno.EROFS, "the file system is read-only; copy the project to a folder that can be written"),
        (errno.EACCES, "permission"),
    ],
    ids=["full", "read-only", "forbidden"],
)
def test_a_disk_that_takes_nothing(
    own_edited: Path, melo: Melo, files_of: FilesOf, monkeypatch: pytest.MonkeyPatch, code: int, line: str
) -> None:
    class Refusing(file_io.Disk):
        def write(self, handle: int, data: memoryview) -> int:
            raise OSError(code, os.strerror(code))

    before = files_of(own_edited)
    with monkeypatch.context() as patch:
        patch.setattr(file_io, "disk", Refusing())
        run = melo("edit", "--prompt", "Who?", "--target", "Paris")
        assert run.code == 2
        assert line in run.error
        assert melo("query", "What is the capital of France?", "--json").json[0]["edited"] == "Paris"
    after = files_of(own_edited)
    assert {name: after[name] for name in before} == before
    assert melo("log", "--json").json[0]["snapshot"] == 2
