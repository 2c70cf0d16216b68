"""One output, three forms: tables and colours at a terminal, plain text in a pipe, one JSON document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.ui.elements import Note, Table, View
from melo_cli.ui.output import make_renderer
from melo_cli.ui.plain_renderer import plain_table
from melo_cli.ui.text import printable
from melo_cli.units import human_bytes, human_duration

COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*3[0-9]m")


@pytest.fixture
def facts(here: Path, make_project: Callable[..., Any]) -> Path:
    make_project(here / ".melo/facts", prompts=["Who leads?", "Where is [bold]it[/bold]?"])
    return here


def test_a_pipe_gets_no_colours_and_no_boxes(facts: Path, melo_process: Callable[..., Any]) -> None:
    for arguments in (["log"], ["show", "e000002"], ["--help"]):
        run = melo_process(*arguments, cwd=facts)
        assert run.code == 0
        assert run.out.isascii()
        assert "\x1b" not in run.out
        assert "show" not in arguments or "Where is [bold]it[/bold]?" in run.out


def test_a_terminal_gets_both_within_80_columns(
    facts: Path, at_terminal: Callable[..., Any], melo_process: Callable[..., Any]
) -> None:
    running = at_terminal("log", cwd=facts)
    code, shown = running.end()
    assert code == 0
    lines = shown.splitlines()
    assert lines[0] == "project facts (.melo/facts)"
    assert lines[1].split()[:2] == ["snapshot", "made"]
    assert set(lines[2]) == {"─"}
    assert max(len(line) for line in lines) <= 80
    assert len(lines) == 3 + len(json.loads(melo_process("log", "--json", cwd=facts).out))
    assert lines[3].endswith("…")

    running = at_terminal("show", "e000002", cwd=facts)
    assert "Where is [bold]it[/bold]?" in running.end()[1]
    assert COLOUR.search(running.shown)


def test_no_color_is_heeded(facts: Path, at_terminal: Callable[..., Any]) -> None:
    running = at_terminal("show", "e000002", cwd=facts, NO_COLOR="1")
    assert running.end()[0] == 0
    assert not COLOUR.search(running.shown)


def test_an_error_is_one_line_at_a_terminal_too(facts: Path, at_terminal: Callable[..., Any]) -> None:
    code, shown = at_terminal("show", "e000009", "--project", "facts", cwd=facts).end()
    assert code == 2
    assert shown.splitlines()[-1].startswith("melo: error: .melo/facts: the project has no edit 'e000009'")


def test_a_reader_that_goes_away_is_no_error(facts: Path, environment: Callable[..., dict[str, str]]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "melo_cli", "log", "--json"],
        cwd=facts,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == "melo: project facts (.melo/facts)\n"


def test_a_stream_that_cannot_say_it_gets_an_escape(
    here: Path, make_project: Callable[..., Any], melo_process: Callable[..., Any]
) -> None:
    make_project(here / ".melo/facts", prompts=["Où est-il?"])
    run = melo_process("show", "e000001", cwd=here, PYTHONIOENCODING="ascii")
    assert (run.code, "O\\xf9 est-il?" in run.out) == (0, True)
    run = melo_process("show", "e000001", "--json", cwd=here, PYTHONIOENCODING="ascii")
    assert run.json["prompt"] == "Où est-il?"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red]", "plain [red]text[/red]"),
        ("line\nbreak\ttab", r"line\nbreak\ttab"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        ("caf\udce9", r"caf\udce9"),
        ("日本語 می‌خواهم 👩‍🔬", "日本語 می‌خواهم 👩‍🔬"),
    ],
)
def test_text_of_others_is_made_harmless_and_stays_readable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_has_null_for_numbers_that_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    make_renderer(json=True).show(View([], {"a": [float("nan"), float("inf"), 1.5]}))
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5]}


def test_a_plain_table_is_aligned() -> None:
    table = Table(("name", "n"), [("long name", "1"), ("x", "1234")], title="counts", right=frozenset("n"))
    assert plain_table(table) == "counts\nname          n\nlong name     1\nx          1234"


def test_a_note_keeps_a_setting_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    setting = "key.encoder=sentence-transformers/all-MiniLM-L6-v2"
    note = Note(f"{'in words ' * 5}{setting} and {'long-' * 20}path")
    make_renderer().show(View([note], None))
    lines = capsys.readouterr().out.splitlines()
    assert [setting in line for line in lines].count(True) == 1
    assert lines[-1] == f"{'long-' * 20}path"
    assert all(len(line) <= 80 for line in lines[:-1])


def test_sizes_and_times_to_read() -> None:
    assert [human_bytes(size) for size in (0, 999, 84213, 1.5e9)] == ["0 B", "999 B", "84.2 kB", "1.5 GB"]
    assert [human_duration(seconds) for seconds in (0.4, 62, 3723)] == ["0:00", "1:02", "1:02:03"]


def test_progress_in_a_log_is_a_line_now_and_then_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    with make_renderer().progress("editing", 100, "edits") as progress:
        for _ in range(4):
            clock += 6.0
            progress.advance(0, loss=0.5)
            progress.advance(25, solved=0.75)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "melo: editing: 25/100 edits, 2.08/s, 0:36 left, loss 0.5, solved 75%",
        "melo: editing: 75/100 edits, 3.12/s, 0:08 left, loss 0.5, solved 75%",
        "melo: editing: 100/100 edits, 4.17/s, in 0:24, loss 0.5, solved 75%",
    ]


def test_progress_of_nothing_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with make_renderer().progress("editing", 0, "edits"):
        pass
    assert capsys.readouterr().err == ""


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = make_renderer()
    renderer.info("loading")
    renderer.warn("a row\nis odd")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "melo: loading\nmelo: warning: a row\\nis odd\n")
