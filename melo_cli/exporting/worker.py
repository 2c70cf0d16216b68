"""Runs a task in a fresh process, which loads an artefact as any other process would.

The process reads one request from stdin and writes JSON, one object per line: progress, and at the end the
result or the error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, Any

from melo_cli.errors import ExportError, MeloError
from melo_cli.reporter import Progress, Reporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.projects import EXPORTED_PROJECT

Request = dict[str, Any]


def run_in_worker(task: str, opened: OpenProject, request: Request, reporter: Reporter) -> Any:
    """Run a task of `main` on the same snapshot in a fresh process, and return its result.

    Args:
        task: `measure` or `expected outputs`.
        opened: the project, opened.
        request: arguments of the task, as JSON values.
        reporter: shows the progress of the process.

    Raises:
        ExportError: the process failed.
    """
    whole = request | {"task": task} | _reopening(opened)
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        with process.stdin as stdin:
            json.dump(whole, stdin)
        outcome = _follow(process.stdout, reporter)
    if "result" not in outcome:
        reason = outcome.get("error") or f"its process ended with code {process.returncode}"
        raise ExportError(f"the artefact could not be checked: {reason}", where=task)
    return outcome["result"]


def _follow(lines: IO[str], reporter: Reporter) -> dict[str, Any]:
    """Forward the progress of the process, job by job; return its outcome."""
    for line in lines:
        event = json.loads(line)
        if "job" not in event:
            return dict(event)
        with reporter.progress(*event["job"]) as progress:
            for inner in lines:
                step = json.loads(inner)
                if "steps" not in step:
                    break
                progress.advance(step["steps"])
    return {}


def _reopening(opened: OpenProject) -> Request:
    path = opened.project.path
    exported = path.name == EXPORTED_PROJECT and (path.parent / "config.json").is_file()
    base = None if exported else opened.routed.base.location
    return {"project": str(path.parent if exported else path), "at": opened.project.snapshot, "base": base}


class _Relay:
    """A reporter that writes progress as JSON lines."""

    def __init__(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        self._write = write

    def info(self, message: str) -> None:
        return None

    def warn(self, message: str) -> None:
        return None

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        self._write({"job": [label, total, unit]})
        try:
            yield _RelayedProgress(self._write)
        finally:
            self._write({"done": label})


class _RelayedProgress:
    def __init__(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        self._write = write

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._write({"steps": steps})


def main() -> None:
    """Read the request, do it, write the outcome."""
    from melo_cli.exporting.expected_outputs import expected_outputs
    from melo_cli.exporting.merging.retention import measure

    tasks = {"measure": measure, "expected outputs": expected_outputs}
    request = json.load(sys.stdin)
    stdout = sys.stdout

    def write(event: Mapping[str, Any]) -> None:
        stdout.write(json.dumps(event) + "\n")
        stdout.flush()

    try:
        with redirect_stdout(sys.stderr):
            opened = open_project(Path(request["project"]), at=request["at"], base=request["base"])
            result = tasks[request["task"]](opened, request, _Relay(write))
    except MeloError as error:
        write({"error": str(error)})
    else:
        write({"result": result})
