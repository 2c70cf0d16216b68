"""`melo doctor`: what melo stands on here, in a form to paste into a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

Melo = Callable[..., Any]


def field_values(text: str) -> dict[str, list[str]]:
    """The texts of each named line."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("  ")
        values.setdefault(name, []).append(value.strip())
    return values


def test_all_is_well_and_the_self_test_passes(here: Path, melo: Melo) -> None:
    run = melo("doctor")
    assert run.code == 0, run.out
    lines = field_values(run.out)
    assert lines["melo"] == [version("melo-cli")]
    assert lines["torch"] == [version("torch")]
    assert lines["device"][0].startswith("cpu, ")
    assert lines["device"][0].endswith(" free")
    assert lines["this folder"][0].endswith("can be written")
    assert lines["project"] == ["none here"]
    assert [line.split(":")[0] for line in lines["self-test"]] == [
        "make a tiny model",
        "edit it",
        "ask it",
        "take the edit back",
    ]
    assert all(": pass, " in line for line in lines["self-test"])
    assert lines["verdict"] == ["all is well"]
    assert list(here.iterdir()) == []
    assert "Traceback" not in run.err
    assert "shards" not in run.err


def test_an_edit_that_does_not_hold_fails_it(here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melo_cli.editing.solving.same_answer", lambda *_: False)
    run = melo("doctor", "--json")
    assert run.code == 1
    assert run.json["ok"] is False
    assert run.json["faults"] == ["edit it"]
    assert [step["name"] for step in run.json["steps"]] == ["make a tiny model", "edit it"]
    assert "the edit failed" in run.json["steps"][-1]["fault"]


def test_a_reverted_edit_that_answers_still_fails_it(
    here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melo_store.writer.Writer.revert", lambda *_, **__: None)
    run = melo("doctor")
    assert run.code == 1
    assert field_values(run.out)["self-test"][-1].startswith("take the edit back: FAILED: ")
    assert field_values(run.out)["verdict"] == ["FAILED: take the edit back"]


def test_the_self_test_can_be_left_out(here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melo_cli.doctor.self_test_steps._run", lambda _: pytest.fail("it ran"))
    run = melo("doctor", "--no-self-test")
    assert (run.code, field_values(run.out)["self-test"]) == (0, ["left out"])
    assert melo("doctor", "--no-self-test", "--json").json["steps"] is None


def test_the_home_folder_is_a_tilde(here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("MELO_CACHE", str(here / "kept"))
    for options in ((), ("--json",)):
        run = melo("doctor", "--no-self-test", *options)
        assert str(here) not in run.out
        assert "~/kept" in run.out


def test_a_folder_that_cannot_be_written_fails(
    tmp_path: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):  # nothing is forbidden to root but what the kernel itself keeps
        if not Path("/proc/self").exists():
            pytest.skip("there is no folder here that root cannot write")
        monkeypatch.chdir("/proc")
    run = melo("doctor", "--no-self-test")
    tmp_path.chmod(0o755)
    assert run.code == 1
    assert "FAILED: " in field_values(run.out)["this folder"][0]
    assert "this folder" in field_values(run.out)["verdict"][0]


def test_a_cache_that_cannot_be_made_fails(here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("no folder")
    monkeypatch.setenv("MELO_CACHE", str(here / "file" / "cache"))
    run = melo("doctor", "--no-self-test")
    assert run.code == 1
    assert "FAILED: Not a directory" in field_values(run.out)["melo cache"][0]
    assert field_values(run.out)["verdict"] == ["FAILED: melo cache"]


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_a_library_that_cannot_be_imported_is_reported(
    here: Path, name: str, melo_process: Melo, environment: Callable[..., dict[str, str]]
) -> None:
    broken = here / "broken"
    broken.mkdir()
    (broken / f"{name}.py").write_text("raise OSError('libbroken.so: cannot open shared object file')\n")
    path = os.pathsep.join([str(broken), environment()["PYTHONPATH"]])
    run = melo_process("doctor", cwd=here, PYTHONPATH=path)
    assert run.code == 1, run.err
    lines = field_values(run.out)
    assert lines[name] == [
        f"{version(name)}, FAILED: cannot be imported (OSError: libbroken.so: cannot open shared object file)"
    ]
    assert lines["device"][0].startswith("cpu, ")
    assert "libbroken.so" in lines["self-test"][-1]
    assert "Traceback" not in run.err


def test_the_project_here_is_shown_with_its_base(
    own_edited: Path, melo: Melo, make_project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = field_values(melo("doctor", "--no-self-test").out)["project"][0]
    assert line.startswith("facts (.melo/facts), format ")
    assert line.endswith("pico-t5, found")
    make_project(own_edited / "other")
    monkeypatch.setenv("MELO_PROJECT", "other")
    other = melo("doctor", "--no-self-test", "--json").json["project"]
    assert (other["name"], other["snapshot"], other["base"]) == (
        "other",
        1,
        "some/model@main, not in the hub cache yet",
    )


def test_a_damaged_project_fails(own_edited: Path, melo: Melo) -> None:
    (own_edited / ".melo/facts/manifest.json").write_text("{")
    run = melo("doctor", "--no-self-test")
    assert run.code == 1
    assert "FAILED: " in field_values(run.out)["project"][0]
    assert "project" in field_values(run.out)["verdict"][0]
