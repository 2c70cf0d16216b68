"""The command line is frozen: every command, argument, option and exit code stands in `command_line.yaml`.

A change of it is a change of that file, for a reviewer to see:

    python tests/packaging/test_command_line.py

writes it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from melo_cli import app, errors

REVIEWED = Path(__file__).with_name("command_line.yaml")
ALWAYS = {"done": 0, "an error of melo's own": 1, "a wrong option or argument": 2, "interrupted": 130}


def test_the_command_line_is_as_it_was_reviewed() -> None:
    reviewed = yaml.safe_load(REVIEWED.read_text(encoding="utf-8"))
    present = command_line()
    assert present["exit codes"] == reviewed["exit codes"]
    assert list(present["commands"]) == list(reviewed["commands"])
    for name, command in present["commands"].items():
        assert command == reviewed["commands"][name], name


def command_line() -> dict[str, Any]:
    """What a script may rely on: names, what they take, whether they are needed, defaults; no help texts."""
    root = typer.main.get_command(app.build_app())
    return {"exit codes": ALWAYS | dict(_errors()), "commands": dict(_commands(root, "melo", None))}


def _errors() -> Iterator[tuple[str, int]]:
    """The exit code of each kind of error."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.MeloError):
            yield name, kind.exit_code


def _commands(node: Any, name: str, parent: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    context = node.context_class(node, info_name=name, parent=parent)
    records = [(each, each.get_help_record(context)) for each in node.params]
    yield name, {record[0]: _parameter(each) for each, record in records if record is not None}
    for below, each in sorted(getattr(node, "commands", {}).items()):
        yield from _commands(each, f"{name} {below}", context)


def _parameter(each: Any) -> dict[str, Any]:
    default = getattr(each.default, "value", each.default)
    fields = {
        "required": bool(each.required),
        "several": bool(getattr(each, "multiple", False)) or each.nargs == -1,
        "flag": bool(getattr(each, "is_flag", False)),
        "default": default if isinstance(default, str | int | float) else None,
    }
    return {name: value for name, value in fields.items() if value not in (False, None)}


if __name__ == "__main__":
    text = yaml.safe_dump(command_line(), sort_keys=False, allow_unicode=True, width=110)
    REVIEWED.write_text(f"# What scripts rely on; see test_command_line.py.\n{text}", encoding="utf-8")
