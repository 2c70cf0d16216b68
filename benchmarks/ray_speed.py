"""Wall clock of `melo edit` with two Ray workers against one process, as a Markdown table.

    python benchmarks/ray_speed.py recipe.yaml --set dataset.max_edits=200 --repeats 2

Both make the same edits, in turn, each process with one thread. `editing` is the time in batches, loading and
the start of Ray left out; `all` is the whole command. Ray gives its workers a low priority, under which they
wait for whatever else runs; here they have that of the other side.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

SIDES = {"one process": (), "two workers": ("--ray", "local", "--workers", "2")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("build/ray-speed"))
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", RAY_worker_niceness="0")
    overrides = [part for each in options.overrides for part in ("--set", each)]
    _edit(options.recipe, overrides, options.to, ())  # what is learnt once a base is in the cache from now on
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    loads = []
    for _ in range(options.repeats):
        for side, more in SIDES.items():
            loads.append(os.getloadavg()[0])
            taken[side].append(_edit(options.recipe, overrides, options.to, more))
    typer.echo(f"{os.cpu_count()} CPUs, {_threads_a_core()} to a core; load before each run: ", nl=False)
    typer.echo(", ".join(f"{load:.1f}" for load in loads))
    typer.echo("\n| | editing, s | all, s |\n| --- | --- | --- |")
    medians = {
        side: [statistics.median(column) for column in zip(*runs, strict=True)]
        for side, runs in taken.items()
    }
    for side, (editing, whole) in medians.items():
        typer.echo(f"| {side} | {editing:.1f} | {whole:.1f} |")
    ratios = [one / two for one, two in zip(medians["one process"], medians["two workers"], strict=True)]
    typer.echo(f"| times as fast | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def _edit(recipe: str, overrides: Sequence[str], folder: Path, more: Sequence[str]) -> tuple[float, float]:
    """Seconds in batches, and of the whole command."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "melo_cli",
        "edit",
        recipe,
        *overrides,
        "--project",
        str(folder),
        "--json",
        *more,
    ]
    started = time.monotonic()
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode > 1:  # 1 is an edit that failed
        sys.exit(run.returncode)
    return float(json.loads(run.stdout)["seconds"]), time.monotonic() - started


def _threads_a_core() -> str:
    """How many CPUs are threads of one core, where the system says so."""
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    if not siblings.is_file():
        return "unknown"
    text = siblings.read_text(encoding="ascii").strip()
    return str(
        sum(
            int(last or first) - int(first) + 1
            for first, _, last in (part.partition("-") for part in text.split(","))
        )
    )


if __name__ == "__main__":
    main()
