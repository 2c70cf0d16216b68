"""Compares the ways to merge: what each keeps, its seconds and its peak memory.

    python benchmarks/merge_methods.py PROJECT [--edits 10 100] [--methods sum compile distill]

Each line is one run of `melo export --merge` in a process of its own on the first so many edits of the
project, measured by the command itself, as `melo eval` does: rephrases, unrelated prompts and hard negatives
that nothing was learned from. Each share stands beside the routed model's, with the number of prompts.
Processor seconds and peak memory are those of the whole command, measuring included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = (
    *("edits", "method", "ES", "generality", "agreement", "hard unchanged"),
    *("seconds to merge", "processor s", "peak GB"),
)


def main() -> None:
    """Run every method at every size, and print a Markdown table."""
    arguments = _arguments()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)  # noqa: T201
    for count in arguments.edits:
        for method in arguments.methods:
            row = _run(arguments, count, method)
            print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--edits", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--methods", nargs="+", default=["sum", "compile", "distill"])
    parser.add_argument("--keep", type=Path, help="folder for the JSON document of every run")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="passed on to melo export")
    return parser.parse_args()


def _run(arguments: argparse.Namespace, count: int, method: str) -> list[Any]:
    from melo_cli.runtime.projects import open_store

    live = [edit.edit_id for edit in open_store(arguments.project).edits() if edit.status == "live"][:count]
    with tempfile.TemporaryDirectory() as location:
        command = [sys.executable, "-m", "melo_cli", "export", "--merge", "--merge-method", method, "--json"]
        command += [
            "--project",
            str(arguments.project),
            "--to",
            f"{location}/merged",
            "--edits",
            ",".join(live),
        ]
        done, used = _waited_for([*command, *arguments.options])
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / f"{method}-{len(live)}.json").write_text(json.dumps(done), encoding="utf-8")
    return [
        len(live),
        method,
        *(_of_routed(done, metric) for metric in ("edit_success", "generality", "locality_agreement")),
        _of_routed(done, "hard_agreement"),
        f"{done['seconds']:.0f}",
        f"{used.ru_utime + used.ru_stime:.0f}",
        f"{used.ru_maxrss / 1e6:.2f}",
    ]


def _waited_for(command: list[str]) -> tuple[dict[str, Any], resource.struct_rusage]:
    """The JSON document of a command, and what it and its children used."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            sys.exit(err.read())
        return json.load(out), used


def _of_routed(document: dict[str, Any], metric: str) -> str:
    merged, routed = document["merged"][metric], document["routed"][metric]
    if merged is None:
        return ""
    return f"{merged['generation']:.3f} of {routed['generation']:.3f} (n = {merged['n']})"


if __name__ == "__main__":
    main()
