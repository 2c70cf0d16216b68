"""Whether a server answers as `melo query` does, and how fast, with many requests at once.

    melo query --json - --max-new-tokens 24 < prompts.txt > expected.json
    python benchmarks/serving.py URL expected.json [--requests 1000] [--at-once 32] [--max-tokens 24]
        [--plain] [--model NAME | --adapters FOLDER] [--compare] [--json]

Asks the prompts of `expected.json` over and over, every other request one that an edit answers, greedily and
through OpenAI's API: `/v1/chat/completions`, with --plain `/v1/completions`.

With `--adapters FOLDER` each request names the adapter of its own route, as a client without a router must
(folders `b000001-...` that `melo serve --upstream` has written, loaded into that server). Without `--compare`
the answers' texts are counted and not judged, as a server without adapters gives the base's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        edited: whether an edit answers its prompt.
        right: whether it was answered as `melo query` answers.
        seconds: time until the whole answer was there.
        tokens: tokens written.
    """

    edited: bool
    right: bool
    seconds: float
    tokens: int


def main() -> None:
    """Ask, and print what was measured."""
    options = _parser().parse_args()
    expected = json.loads(Path(options.expected).read_text(encoding="utf-8"))
    started = time.perf_counter()
    asked = asyncio.run(_ask_all(options, list(itertools.islice(_mixed(expected), options.requests))))
    figures = _figures(asked, time.perf_counter() - started)
    if not options.compare:
        del figures["right"], figures["of"]
    lines = [json.dumps(figures)] if options.json else [f"{name:12} {figures[name]}" for name in figures]
    sys.stdout.write("\n".join(lines) + "\n")


def _mixed(expected: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Prompts without end, every other one of an edit."""
    edited = itertools.cycle([each for each in expected if each["route"]])
    others = itertools.cycle([each for each in expected if not each["route"]])
    for one, other in zip(edited, others, strict=False):
        yield one
        yield other


async def _ask_all(options: argparse.Namespace, prompts: Sequence[dict[str, Any]]) -> list[Asked]:
    limits = httpx.Limits(max_connections=options.at_once)
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    async with httpx.AsyncClient(base_url=options.url, timeout=600, limits=limits, headers=headers) as client:
        model = options.model or (await client.get("/v1/models")).json()["data"][0]["id"]
        room = asyncio.Semaphore(options.at_once)

        async def ask(prompt: dict[str, Any]) -> Asked:
            async with room:
                return await _ask(client, options, model, prompt)

        return await asyncio.gather(*map(ask, prompts))


async def _ask(
    client: httpx.AsyncClient, options: argparse.Namespace, model: str, prompt: dict[str, Any]
) -> Asked:
    body: dict[str, Any] = {"model": model, "max_tokens": options.max_tokens, "temperature": 0}
    if options.adapters is not None and prompt["route"]:
        (folder,) = Path(options.adapters).glob(f"{prompt['route']['block']}-*")
        body["model"] = folder.name
    if options.plain:
        path, body["prompt"] = "/v1/completions", prompt["prompt"]
    else:
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": prompt["prompt"]}]
    started = time.perf_counter()
    response = await client.post(path, json=body)
    seconds = time.perf_counter() - started
    document = response.raise_for_status().json()
    choice = document["choices"][0]
    text = choice["text"] if options.plain else choice["message"]["content"]
    right = text.strip() == prompt["edited"].strip()
    return Asked(bool(prompt["route"]), right, seconds, document["usage"]["completion_tokens"])


def _figures(asked: Sequence[Asked], seconds: float) -> dict[str, Any]:
    times = sorted(each.seconds for each in asked)
    return {
        "right": sum(each.right for each in asked),
        "of": len(asked),
        "requests/s": round(len(asked) / seconds, 2),
        "tokens/s": round(sum(each.tokens for each in asked) / seconds, 1),
        "p50, s": round(statistics.median(times), 3),
        "p95, s": round(times[int(0.95 * (len(times) - 1))], 3),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("expected", help="the output of `melo query --json`")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--adapters", help="folder of adapters, which the requests name themselves")
    parser.add_argument("--key")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
