"""A command line that cannot be meant: exit code 2 and one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli import app
from melo_cli.errors import MeloError

Melo = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["query"], "Missing argument 'TEXT'; see `melo query --help`"),
        (["query", "a", "--nope"], "No such option: --nope; see `melo query --help`"),
        (
            ["edit"],
            "melo edit: there is nothing to edit; "
            "name a RECIPE or a file of edits, or give --prompt and --target",
        ),
        (["edit", "--prompt", "p"], "melo edit: a single edit needs an answer; give --target TEXT"),
        (
            ["edit", "--prompt", "p", "--target", " "],
            "melo edit: a single edit needs an answer; give --target TEXT",
        ),
        (
            ["edit", "--prompt", "", "--target", "t"],
            "melo edit: a single edit needs a prompt; give --prompt TEXT",
        ),
        (
            ["export"],
            "melo export: no format is given; "
            "give one of --format peft, --format gguf, --format routed and --merge",
        ),
        (
            ["export", "--merge", "--format", "peft"],
            "melo export: --format and --merge do not go together; "
            "give one of --format peft, --format gguf, --format routed and --merge",
        ),
        (
            ["export", "--merge", "--base-name", "b"],
            "--base-name: only adapters name a base model; add --format peft",
        ),
        (["eval", "--plot", "a.txt"], "--plot a.txt: a plot is .png, .svg or .pdf; change the ending"),
        (["eval", "--plot", "no/a.png"], "--plot no/a.png: there is no such folder; make no first"),
        (["eval", "--report", "a.htm"], "--report a.htm: a report is .html; change the ending"),
        (["eval", "--results", "a.csv"], "--results a.csv: results are .parquet; change the ending"),
        (["query", "-"], "stdin: it holds no prompt; write one prompt a line"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_says_what_is_wrong(here: Path, melo: Melo, arguments: list[str], line: str) -> None:
    run = melo(*arguments)
    assert (run.code, run.out, run.error) == (2, "", line)
    assert not list(here.iterdir())


def test_a_command_that_is_none(here: Path, melo: Melo) -> None:
    run = melo("qury")
    assert run.code == 2
    assert run.error.startswith("No such command 'qury'")
    assert run.error.endswith("; see `melo --help`")


def test_a_number_that_is_none(here: Path, melo: Melo) -> None:
    run = melo("query", "a", "--at", "x")
    assert run.code == 2
    assert run.error.startswith("Invalid value for '--at': ")
    assert run.error.endswith("; see `melo query --help`")


def test_text_that_is_not_utf8(here: Path, melo: Melo) -> None:
    run = melo("query", "caf\udce9")
    assert run.code == 2
    assert run.error == "Invalid value for 'TEXT': it is not UTF-8 at character 4; see `melo query --help`"
    run = melo("query", "-", stdin=b"good\ncaf\xe9\n")
    assert (run.code, run.error) == (2, "stdin:2: it is not UTF-8; save it as UTF-8")


def test_debug_shows_the_traceback_wherever_it_stands(here: Path, melo: Melo) -> None:
    for arguments in (["--debug", "status"], ["status", "--debug"]):
        run = melo(*arguments)
        assert run.code == 2
        assert "Traceback" in run.err
        assert run.err.splitlines()[-1].startswith("melo: error: ")
    run = melo("query", "--", "--debug")
    assert "Traceback" not in run.err


def test_a_fault_of_melo_itself_is_one_line_and_exit_code_1(
    here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("melo_cli.commands.status.choose_project", broken)
    run = melo("status")
    assert (run.code, run.error) == (1, "melo failed: RuntimeError: two lines; add --debug for the traceback")


def test_an_error_cannot_write_to_the_terminal(
    here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(*_: object, **__: object) -> None:
        raise MeloError("it is \x1b[31mred\x07", where="[bold]file[/bold]")

    monkeypatch.setattr("melo_cli.commands.status.choose_project", hostile)
    assert melo("status").error == r"[bold]file[/bold]: it is \x1b[31mred\x07"


def test_every_error_of_the_tree_has_an_exit_code() -> None:
    def family(kind: type[MeloError]) -> list[type[MeloError]]:
        return [kind, *(member for child in kind.__subclasses__() for member in family(child))]

    codes = {kind.__name__: kind.exit_code for kind in family(MeloError)}
    assert {name for name, code in codes.items() if code != 2} == {"ArtefactError"}, (
        "the work ran: exit code 1"
    )
    assert codes["ArtefactError"] == 1
    assert app._described(MeloError("w", where="x", hint="m")) == ("x: w; m", 2)
