"""Kills Ray workers and `melo edit --ray` itself at random, and checks that nothing is lost.

    python benchmarks/ray_chaos.py recipe.yaml --minutes 10 --to build/chaos

First one process makes the edits of the recipe. Then `--ray local --workers 2` makes them again while
something is killed every few seconds (SIGKILL): a worker, or the command, which is then started again. A
project that is done is compared, and another one begun, until the time is over. The two are the same if
edits, statuses, keys, token vectors and blocks are, byte for byte. The exit code is 1 where they are
not, or a command fails.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from melo_store.project import Project

_COMMANDS = 0.25
"""Share of kills that are meant for the command."""

_EDITS_FAILED = 1
"""The exit code of a run that made its edits, of which some did not take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between two kills, about")
    parser.add_argument("--to", type=Path, default=Path("build/chaos"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shutil.rmtree(options.to, ignore_errors=True)
    command = [sys.executable, "-m", "melo_cli", "edit", options.recipe]
    command += [part for each in options.overrides for part in ("--set", each)]
    calm = options.to / "calm"
    if subprocess.run([*command, "--project", calm]).returncode > _EDITS_FAILED:
        sys.exit("the edits cannot be made in one process either")
    counts, failures = _chaos(command, content_of(calm), options)
    typer.echo(f"{', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    typer.echo("nothing was lost" if not failures else "\n".join(failures))
    sys.exit(bool(failures))


def _chaos(
    command: Sequence[str], expected: Any, options: argparse.Namespace
) -> tuple[Counter[str], list[str]]:
    drawn = random.Random(options.seed)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end and not failures:
        project = options.to / f"chaos-{counts['projects']}"
        code = _until_done(
            [*command, "--project", str(project), "--ray", "local", "--workers", "2"],
            drawn,
            options,
            counts,
            end,
        )
        counts["projects"] += 1
        if code > _EDITS_FAILED:
            failures.append(f"{project}: the command ended with {code}")
        elif content_of(project) != expected:
            failures.append(f"{project}: it differs from the one in which nothing was killed")
        else:
            shutil.rmtree(project)
    return counts, failures


def _until_done(
    command: Sequence[str],
    drawn: random.Random,
    options: argparse.Namespace,
    counts: Counter[str],
    end: float,
) -> int:
    """Start a command again until it ends by itself; its exit code."""
    while True:
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while running.poll() is None:
            pause = drawn.uniform(0.3, 1.7) * options.pause
            try:
                return running.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                pass
            if time.monotonic() < end and not _kill_something(running, drawn, counts):
                break
        if running.wait() != -signal.SIGKILL:
            return running.returncode


def _kill_something(running: subprocess.Popen[bytes], drawn: random.Random, counts: Counter[str]) -> bool:
    """Kill the command, or oftener a worker, if there is one; whether the command is left."""
    if drawn.random() < _COMMANDS:
        running.kill()
        counts["commands killed"] += 1
        return False
    workers = sorted(workers_of(running.pid))
    if workers:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(drawn.choice(workers), signal.SIGKILL)
            counts["workers killed"] += 1
    return True


def workers_of(driver: int) -> Iterator[int]:
    """The workers that the command of this process id has started: its raylet's children."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    for pid, parent in parents.items():
        if parents.get(parent) == driver and _read(Path(f"/proc/{pid}/cmdline")).startswith("ray::Worker"):
            yield pid


def _parent(process: Path) -> int:
    lines = _read(process / "status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended
        return ""


def content_of(path: Path) -> Any:
    """What two projects must have in common: everything but times of day."""
    project = Project.open(path)
    edits = [
        (
            (view.edit_id, view.status, view.superseded_by, view.prompt, view.target, view.block),
            (dict(view.record.metrics), _bytes(view.record.key), _bytes(view.record.tokens)),
        )
        for view in project.edits()
    ]
    blocks = [
        [
            (name, part.A.tobytes(), part.B.tobytes(), part.scale)
            for name, part in project.block(each).slices.items()
        ]
        for each in project.block_ids()
    ]
    return project.snapshot, edits, blocks


def _bytes(array: Any) -> bytes | None:
    return None if array is None else array.tobytes()


if __name__ == "__main__":
    main()
