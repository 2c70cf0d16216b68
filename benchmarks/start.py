"""Seconds of the command line, and what `melo query` adds to loading its base model, as a Markdown table.

    python benchmarks/start.py PROJECT "Where was Jan Zamoyski born?"

Every command runs in a process of its own, several times in turn, with its output in a pipe. Beside the
commands runs a process that only loads the project's base model with transformers and prints one line. The
table gives medians: seconds to the last output, when the answer is there, to the end of the process, and of
processor time. "Above loading" is what `melo query` took beyond loading in the same turn. The first turn
brings the files into memory and does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from melo_cli.runtime.projects import open_overview

_LOADING = "loading the base model"
_QUERY, _ABOVE_LOADING = "melo query", "melo query, above loading"
_PIPE_BYTES = 65536
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
print("loaded")
"""


@dataclass(frozen=True)
class Taken:
    """Seconds of one process: until its last output, until its end, and of a processor."""

    output: float
    whole: float
    processor: float

    def beyond(self, other: Taken) -> Taken:
        """These seconds minus those of `other`."""
        return Taken(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


def main() -> None:
    """Time every command and print the table."""
    options = _options()
    commands = _commands(options)
    taken: dict[str, list[Taken]] = {name: [] for name in [*commands, _ABOVE_LOADING]}
    for turn in range(options.repeats + 1):
        seconds = {name: _run(command) for name, command in commands.items()}
        seconds[_ABOVE_LOADING] = seconds[_QUERY].beyond(seconds[_LOADING])
        if turn:
            for name, each in seconds.items():
                taken[name].append(each)
    print(f"| {options.repeats} turns | to the last output, s | to the end, s | processor, s |")  # noqa: T201
    print("| --- | --- | --- | --- |")  # noqa: T201
    for name, runs in taken.items():
        columns = zip(*map(astuple, runs), strict=True)
        print(f"| {name} | {' | '.join(f'{statistics.median(column):.2f}' for column in columns)} |")  # noqa: T201


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


def _run(command: list[str]) -> Taken:
    # As installed: Python keeps what it has compiled of a module.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONUNBUFFERED"] = "1"
    started = last_output = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    while os.read(process.stdout.fileno(), _PIPE_BYTES):
        last_output = time.perf_counter()
    _, status, used = os.wait4(process.pid, 0)
    ended = time.perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return Taken(last_output - started, ended - started, used.ru_utime + used.ru_stime)


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
