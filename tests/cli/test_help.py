"""Help, version and completion, and what they must not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMANDS = [
    "edit",
    "calibrate",
    "query",
    "chat",
    "eval",
    "bench",
    "export",
    "serve",
    "route",
    "inspect",
    "status",
    "log",
    "show",
    "diff",
    "revert",
    "verify",
    "gc",
    "migrate",
    "doctor",
    "recipes",
]
HEAVY = ("torch", "transformers", "peft", "pyarrow", "hnswlib", "datasets", "numpy", "rich")


def test_help_imports_nothing_heavy(environment: Callable[..., dict[str, str]]) -> None:
    lines = [["--help"], *([name, "--help"] for name in COMMANDS)]
    code = (
        "import sys\nfrom melo_cli.app import main\n"
        f"for line in {lines!r}:\n    assert main(line) == 0, line\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.rpartition("MODULES ")[2].split())
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


def test_help_names_every_command(melo: Callable[..., Any]) -> None:
    run = melo("--help")
    assert run.code == 0
    listed = run.out.partition("Commands:")[2]
    assert [
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    ] == COMMANDS


def test_without_a_command_the_help_is_shown(melo: Callable[..., Any]) -> None:
    run = melo()
    assert (run.code, run.out, run.err) == (0, melo("--help").out, "")


def test_version(melo: Callable[..., Any]) -> None:
    from importlib.metadata import version

    run = melo("--version")
    assert (run.code, run.out) == (0, f"melo {version('melo-cli')}\n")


def test_completion_offers_commands_and_projects(
    tmp_path: Path, melo_process: Callable[..., Any], make_project: Callable[..., Any]
) -> None:
    make_project(tmp_path / ".melo" / "facts")
    complete = {"_MELO_COMPLETE": "complete_bash"}
    commands = melo_process(cwd=tmp_path, COMP_WORDS="melo e", COMP_CWORD="1", **complete)
    assert commands.out.split() == ["edit", "eval", "export"]
    projects = melo_process(cwd=tmp_path, COMP_WORDS="melo status --project ", COMP_CWORD="3", **complete)
    assert projects.out.split() == ["facts"]


def test_importing_melo_cli_is_cheap_and_load_is_there(environment: Callable[..., dict[str, str]]) -> None:
    code = "import sys, melo_cli\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)
    import melo_cli
    from melo_cli.runtime.loading import load

    assert melo_cli.load is load
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = melo_cli.lod
