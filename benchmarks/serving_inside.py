"""Tokens a second of `melo serve`'s own engine, beside `generate` of the plain model on the same prompts.

    melo query --json - --max-new-tokens 24 < prompts.txt > expected.json
    python benchmarks/serving_inside.py PROJECT expected.json [--at-once 32] [--tokens 32] [--rounds 3]
        [--mixed]

Both write the same number of tokens for each prompt, end tokens or not. The plain model writes whole batches
of `--at-once` prompts; the engine is given a new prompt whenever an answer is complete, half of them edited.
With `--mixed` its answers are half as long or half as long again in turn, so that rows join and leave all the
time. The two take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from melo_cli.models.base_model import load_base_model
from melo_cli.models.encoding import pad_prompts
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.serving.engines.engine import Question, Routed
from melo_cli.serving.engines.inside import InsideEngine
from melo_cli.serving.openai_schema import ChatCompletionRequest
from melo_cli.serving.routing import ProjectRoutes
from melo_cli.torch_threads import one_thread, pool_of_one


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("expected", type=Path, help="the output of `melo query --json`")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", action="store_true")
    options = parser.parse_args()
    expected = json.loads(options.expected.read_text(encoding="utf-8"))
    edited = [each["prompt"] for each in expected if each["route"]]
    others = [each["prompt"] for each in expected if not each["route"]]
    pairs = zip(itertools.cycle(edited), itertools.cycle(others), strict=False)
    prompts = list(itertools.chain.from_iterable(itertools.islice(pairs, options.at_once)))
    threads = torch.get_num_threads()
    # As in the server. The plain model has a thread of its own too, which ends with its work.
    with one_thread():
        _compare(options, prompts, threads)


def _compare(options: argparse.Namespace, prompts: Sequence[str], threads: int) -> None:
    opened = open_project(options.project)
    plain = load_base_model(opened.recipe.model.at(opened.project.base.name_or_path), "custom")
    routed = ProjectRoutes(opened).routed(prompts)
    ours, theirs = [], []
    for _ in range(options.rounds):
        with pool_of_one("generate", threads) as own:
            done = own.submit(_generate, plain, opened, prompts, options.at_once, options.tokens)
        theirs.append(done.result())
        lengths = (options.tokens // 2, 3 * options.tokens // 2) if options.mixed else (options.tokens,)
        ours.append(asyncio.run(_engine(opened, prompts, routed, options.at_once, lengths, threads)))
    plainly, inside = statistics.median(theirs), statistics.median(ours)
    sys.stdout.write(
        f"generate of the plain model  {plainly:.1f} tokens/s\n"
        f"the engine inside            {inside:.1f} tokens/s, {inside / plainly:.2f} times\n"
    )


@torch.no_grad()
def _generate(plain: Any, opened: OpenProject, prompts: Sequence[str], at_once: int, tokens: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(prompts), at_once):
        batch = [opened.encoder.prompt(prompt) for prompt in prompts[start : start + at_once]]
        plain.generate(
            **pad_prompts(plain, batch),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=plain.special.pad,
        )
    return len(prompts) * tokens / (time.perf_counter() - started)


async def _engine(
    opened: OpenProject,
    prompts: Sequence[str],
    routed: Sequence[Routed],
    at_once: int,
    lengths: Sequence[int],
    threads: int,
) -> float:
    engine = InsideEngine(opened, "model", rows=at_once, max_tokens=max(lengths), threads=threads)
    await engine.start()
    room = asyncio.Semaphore(at_once)

    async def ask(prompt: str, route: Routed, length: int) -> None:
        message = {"role": "user", "content": prompt}
        request = ChatCompletionRequest.model_validate(
            {"messages": [message], "temperature": 0, "max_tokens": length, "ignore_eos": True}
        )
        async with room:
            await engine.answer(Question(request, request.messages, route))

    started = time.perf_counter()
    await asyncio.gather(*map(ask, prompts, routed, itertools.cycle(lengths)))
    seconds = time.perf_counter() - started
    await engine.stop()
    return len(prompts) * sum(lengths) / len(lengths) / seconds


if __name__ == "__main__":
    main()
