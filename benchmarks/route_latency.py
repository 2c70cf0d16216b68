"""How long a route takes in `melo serve`, with many requests in flight.

    python benchmarks/route_latency.py PROJECT EDITS.jsonl [--at-once 32] [--answer-seconds 1.0]
        [--requests 2000]

Each of `--at-once` clients takes the route of a prompt as the server does, then waits as long as an answer
takes (exponentially distributed with the mean `--answer-seconds`), and goes on. The prompts are those of a
file of edits: their own, their rephrases and locality prompts in turn, so about two in three are of an edit
that the project may have. Prints the quantiles of the time from asking for a route to having it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from melo_cli.runtime.loading import open_project
from melo_cli.serving.routing import ProjectRoutes, RoutingThread
from melo_cli.serving.run import route_threads


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--answer-seconds", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    prompts = list(_prompts(options.data))
    random.Random(0).shuffle(prompts)
    opened = open_project(options.project)
    routing = RoutingThread(ProjectRoutes(opened), route_threads(opened, torch.get_num_threads()))
    routing.source.routed(prompts[:64])  # warms up
    times = sorted(asyncio.run(_ask(routing, prompts, options)))
    quantiles = {share: 1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.95, 0.99)}
    sys.stdout.write(
        f"{len(times)} routes: "
        + ", ".join(f"p{100 * share:.0f} {value:.1f} ms" for share, value in quantiles.items())
        + "\n"
    )


def _prompts(data: Path) -> Iterator[str]:
    for line in data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield from (row["prompt"], *row.get("rephrases", ())[:1], row["locality_prompt"])


async def _ask(routing: RoutingThread, prompts: list[str], options: argparse.Namespace) -> list[float]:
    times: list[float] = []
    left = itertools.islice(itertools.cycle(prompts), options.requests)
    waits = random.Random(1)

    async def client() -> None:
        await asyncio.sleep(waits.expovariate(1 / options.answer_seconds))
        for prompt in left:
            started = time.perf_counter()
            await routing.routed(prompt)
            times.append(time.perf_counter() - started)
            await asyncio.sleep(waits.expovariate(1 / options.answer_seconds))

    await asyncio.gather(*(client() for _ in range(options.at_once)))
    routing.stop()
    return times


if __name__ == "__main__":
    main()
