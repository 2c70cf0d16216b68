"""Seconds of the command line, and what `melo query` adds to loading its base model, as a Markdown table.

    python benchmarks/start.py PROJECT "Where was Jan Zamoyski born?"

Every command runs in a process of its own, in turn, several times over, with its output in a pipe; so does a
process that only loads the project's base model with transformers. The table gives medians, by the wall and
in processor time. "Above loading" is what `melo query` took beyond loading in the same turn. Importing torch
and transformers, most of both, varies by more than that, so "in one process" leaves it out: a process loads
the base twice, the second time with all that this imports there already, and then runs `melo query`, which
loads it once more; counted is what that takes beyond the second time, the imports that are melo's own with
it. A first turn, which brings the files into memory, does not count.
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
_QUERY, _ABOVE_LOADING = "melo query", "melo query, above loading"
_IN_ONE_PROCESS = f"{_ABOVE_LOADING}, in one process"
_LOAD = """
import sys, transformers
path, revision, *command = sys.argv[1:]
revision = revision or None

def load():
    config = transformers.AutoConfig.from_pretrained(path, revision=revision)
    if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        auto_class = transformers.AutoModelForSequenceClassification
    elif config.is_encoder_decoder:
        auto_class = transformers.AutoModelForSeq2SeqLM
    else:
        auto_class = transformers.AutoModelForCausalLM
    transformers.AutoTokenizer.from_pretrained(path, revision=revision)
    auto_class.from_pretrained(path, revision=revision)

load()
"""
_ABOVE = (
    _LOAD
    + """
from time import perf_counter, process_time
clocks = [(perf_counter(), process_time())]
load()
clocks.append((perf_counter(), process_time()))
from melo_cli.app import main
code = main(command)
clocks.append((perf_counter(), process_time()))
spent = [[after - before for before, after in zip(*pair)] for pair in zip(clocks, clocks[1:])]
print(*(own - other for other, own in zip(*spent)))
sys.exit(code)
"""
)


@dataclass(frozen=True)
class Taken:
    """Seconds of one process."""

    wall: float
    processor: float

    def beyond(self, other: Taken) -> Taken:
        return Taken(self.wall - other.wall, self.processor - other.processor)


def main() -> None:
    """Time every command and print the table."""
    options = _options()
    commands = _commands(options)
    taken: dict[str, list[Taken]] = {name: [] for name in [*commands, _ABOVE_LOADING, _IN_ONE_PROCESS]}
    above = [sys.executable, "-c", _ABOVE, *commands[_LOADING][-2:], *commands[_QUERY][3:]]
    for turn in range(options.repeats + 1):
        seconds = {name: _run(command)[0] for name, command in commands.items()}
        seconds[_ABOVE_LOADING] = seconds[_QUERY].beyond(seconds[_LOADING])
        seconds[_IN_ONE_PROCESS] = Taken(*map(float, _run(above)[1].split()[-2:]))
        if turn:
            for name, each in seconds.items():
                taken[name].append(each)
    print(f"| {options.repeats} turns | wall, s | processor, s |\n| --- | --- | --- |")  # noqa: T201
    for name, runs in taken.items():
        wall = statistics.median(run.wall for run in runs)
        processor = statistics.median(run.processor for run in runs)
        print(f"| {name} | {wall:.2f} | {processor:.2f} |")  # noqa: T201


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
        _QUERY: [*melo, "query", *at, *moved, "--", options.prompt],
    }


def _run(command: list[str]) -> tuple[Taken, str]:
    """What a process took, and what it wrote."""
    # As installed: Python keeps what it has compiled of a module.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    written = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return Taken(wall, used.ru_utime + used.ru_stime), written


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
