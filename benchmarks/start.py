"""Seconds of the command line, and what `melo query` adds to loading its base model, as a Markdown table.

    python benchmarks/start.py PROJECT "Where was Jan Zamoyski born?"

Every command runs in a process of its own, in turn, several times over, with its output in a pipe; so does a
process that only loads the project's base model with transformers. The table gives medians, by the wall and
in processor time; "above loading" is the median of the differences to the loading of the same turn. A first
turn, which brings the files into memory, does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from melo_cli.projects import open_overview

_LOADING = "loading the base model"
_LOAD = """
import sys, transformers
path, revision = sys.argv[1], sys.argv[2] or None
config = transformers.AutoConfig.from_pretrained(path, revision=revision)
if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
    auto_class = transformers.AutoModelForSequenceClassification
elif config.is_encoder_decoder:
    auto_class = transformers.AutoModelForSeq2SeqLM
else:
    auto_class = transformers.AutoModelForCausalLM
transformers.AutoTokenizer.from_pretrained(path, revision=revision)
auto_class.from_pretrained(path, revision=revision)
"""


@dataclass(frozen=True)
class Taken:
    """Seconds of one process."""

    wall: float
    processor: float


def main() -> None:
    """Time every command and print the table."""
    options = _options()
    commands = _commands(options)
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for turn in range(options.repeats + 1):
        for name, command in commands.items():
            seconds = _run(command)
            if turn:
                taken[name].append(seconds)
    print(f"| {options.repeats} turns | wall, s | processor, s |\n| --- | --- | --- |")  # noqa: T201
    for name, runs in taken.items():
        _row(name, runs)
    apart = zip(taken["melo query"], taken[_LOADING], strict=True)
    _row(
        "melo query, above loading",
        [Taken(own.wall - other.wall, own.processor - other.processor) for own, other in apart],
    )


def _commands(options: argparse.Namespace) -> dict[str, list[str]]:
    base = open_overview(options.project).base
    model = options.base or base.name_or_path
    melo, at = [sys.executable, "-m", "melo_cli"], ["--project", str(options.project)]
    moved = ["--base", options.base] if options.base else []
    return {
        "melo --help": [*melo, "--help"],
        "melo status": [*melo, "status", *at],
        "melo log": [*melo, "log", *at],
        _LOADING: [sys.executable, "-c", _LOAD, model, base.revision or ""],
        "melo query": [*melo, "query", *at, *moved, "--", options.prompt],
    }


def _run(command: list[str]) -> Taken:
    started = time.perf_counter()
    # As installed: Python keeps what it has compiled of a module.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return Taken(wall, used.ru_utime + used.ru_stime)


def _row(name: str, runs: list[Taken]) -> None:
    wall = statistics.median(run.wall for run in runs)
    processor = statistics.median(run.processor for run in runs)
    print(f"| {name} | {wall:.2f} | {processor:.2f} |")  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path, help="a project's folder")
    parser.add_argument("prompt", nargs="?", default="Who was it?", help="what to ask")
    parser.add_argument("--base", help="the base model, if it has moved since the project was made")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
