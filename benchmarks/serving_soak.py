"""Hours of mixed load on a server whose project changes, whose clients hang up, and whose upstream dies.

    melo query --json - --max-new-tokens 24 < prompts.txt > expected.json
    python benchmarks/serving_soak.py URL expected.json --pid PID [--minutes 60] [--at-once 4] [--pause 1.0]
        [--change-every 10] [--kill-every 600 --kill-port PORT --start 'vllm serve ...']

Clients ask the prompts of `expected.json` greedily, a third of them as streams, and hang up on every tenth.
Every `--change-every` seconds an edit about something made up is added or taken back through the server, and
clients ask for these, too. With `--kill-every` whatever listens on `--kill-port` is killed and started again
20 seconds later.

An answer is wrong if its route or its text is not that of `expected.json`, or if a question of a made-up edit
is not answered by that edit while it is there, or by an edit while it is not. Requests that span a change may
go either way. A request is lost if it fails, other than one that was under way while the upstream was down.
Prints the counts, and the resident memory of the process PID at a tenth of the time and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

MADE_UP = {
    f"Who founded the {name} foundation?": founder
    for name, founder in (
        ("Brivanta", "Ilse Oduya"),
        ("Quellmark", "Tomas Heide"),
        ("Sorvane", "Priya Nandal"),
        ("Tessaly", "Jonas Weck"),
        ("Ombrel", "Lucia Fannet"),
        ("Karvost", "Amir Sellan"),
    )
}
_BACK_AFTER = 20.0  # seconds that the upstream is down


@dataclass
class Soak:
    """A run in progress.

    Attributes:
        live: id of the edit of each made-up question that is there.
        changing: question that is being changed; its routes are not judged.
        changes: number of changes begun or ended so far.
        down_until: until when requests may fail; infinite while the upstream is down.
        counts: what happened.
        faults: descriptions of what should not have happened.
        memory: seconds since the start and resident KiB.
    """

    options: argparse.Namespace
    expected: list[dict[str, Any]]
    client: httpx.AsyncClient
    model: str
    started: float = field(default_factory=time.monotonic)
    live: dict[str, str] = field(default_factory=dict)
    changes: int = 0
    down_since: float = float("inf")
    up_since: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def is_over(self) -> bool:
        return bool(self.seconds > 60 * self.options.minutes)

    def fault(self, what: str) -> None:
        """Note a fault, and show it at once."""
        self.faults.append(what)
        sys.stderr.write(f"{self.seconds:7.0f} s {what}\n")


async def ask_on(soak: Soak, draw: random.Random) -> None:
    """One client: ask, wait, ask."""
    while not soak.is_over:
        await asyncio.sleep(draw.expovariate(1 / soak.options.pause))
        kind = draw.random()
        if kind < 0.2:
            prompt = draw.choice(list(MADE_UP))
            await _checked(soak, prompt, None, stream=False, hang_up=False)
        else:
            row = draw.choice(soak.expected)
            await _checked(soak, row["prompt"], row, stream=kind > 0.6, hang_up=kind > 0.9)


async def _checked(
    soak: Soak, prompt: str, row: dict[str, Any] | None, *, stream: bool, hang_up: bool
) -> None:
    """Ask, and judge route and text."""
    began, changes, live = time.monotonic(), soak.changes, soak.live.get(prompt)
    body = {
        "model": soak.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 24,
        "temperature": 0,
        "stream": stream,
    }
    soak.counts["requests"] += 1
    try:
        status, route, text = await _answer(soak, body, hang_up=hang_up)
    except (httpx.HTTPError, ValueError) as error:
        status, route, text = 0, None, f"{type(error).__name__}: {error}"
    if hang_up and status == 200:
        soak.counts["hung up"] += 1
    if status != 200:
        was_down = time.monotonic() >= soak.down_since or began <= soak.up_since
        soak.counts["failed while the upstream was down" if was_down else "lost"] += 1
        if not was_down:
            soak.fault(f"{status} {text!r} to {prompt!r}")
        return
    if row is None:
        wanted, said = live or "base", None
        if changes % 2 or soak.changes != changes:
            return
    else:
        wanted, said = (row["route"] or {}).get("edit_id") or "base", row["edited"]
    soak.counts["judged"] += 1
    if route != wanted:
        soak.counts["wrong routes"] += 1
        soak.fault(f"{prompt!r} went to {route} and not to {wanted}")
    elif not hang_up and said is not None and text.strip() != said.strip():
        soak.counts["other texts"] += 1
        soak.fault(f"{prompt!r} was answered {text!r} and not {said!r}")


async def _answer(soak: Soak, body: dict[str, Any], *, hang_up: bool) -> tuple[int, str | None, str]:
    """Status, route and text of an answer; with `hang_up` the first piece of the text alone."""
    if not body["stream"]:
        response = await soak.client.post("/v1/chat/completions", json=body)
        if response.status_code != 200:
            return response.status_code, None, response.text
        document = response.json()
        return 200, response.headers["x-melo-route"], document["choices"][0]["message"]["content"]
    text = ""
    async with soak.client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            return response.status_code, None, (await response.aread()).decode()
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if not data or data == "[DONE]":
                continue
            document = json.loads(data)
            if "error" in document:
                return 502, None, str(document["error"])
            for choice in document["choices"]:
                text += choice["delta"].get("content") or ""
            if hang_up and text:
                break
        return 200, response.headers["x-melo-route"], text


async def change_on(soak: Soak, draw: random.Random) -> None:
    """Add and take back made-up edits."""
    while not soak.is_over:
        await asyncio.sleep(soak.options.change_every)
        prompt = draw.choice(list(MADE_UP))
        soak.changes += 1
        try:
            await _change(soak, prompt)
        except httpx.HTTPError as error:
            soak.fault(f"a change failed: {type(error).__name__}: {error}")
        soak.changes += 1


async def _change(soak: Soak, prompt: str) -> None:
    """Take the edit of a made-up question back if it is there, else make it."""
    edit_id = soak.live.pop(prompt, None)
    if edit_id is not None:
        response = await soak.client.post("/melo/revert", json={"edits": [edit_id]})
        soak.counts["reverts"] += 1
    else:
        body = {"prompt": prompt, "target": MADE_UP[prompt]}
        response = await soak.client.post("/melo/edits", json=body)
        soak.counts["edits"] += 1
        if response.status_code == 201:
            soak.live[prompt] = response.json()["edit_id"]
    if response.status_code not in (200, 201):
        soak.fault(f"a change was answered {response.status_code} {response.text}")


async def kill_on(soak: Soak) -> None:
    """Kill the upstream now and then, and start it anew."""
    every = soak.options.kill_every
    while every and soak.seconds + every < 60 * soak.options.minutes:
        await asyncio.sleep(every)
        soak.down_since = time.monotonic()
        for pid in _listening(soak.options.kill_port):
            os.killpg(os.getpgid(pid), signal.SIGKILL)
        await asyncio.sleep(_BACK_AFTER)
        subprocess.Popen(
            soak.options.start,
            shell=True,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not await _is_ready(soak):
            await asyncio.sleep(1)
        soak.up_since, soak.down_since = time.monotonic(), float("inf")
        soak.counts["upstream killed"] += 1


async def _is_ready(soak: Soak) -> bool:
    return (await soak.client.get("/ready")).status_code == 200


def _listening(port: int) -> list[int]:
    done = subprocess.run(["lsof", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


async def watch_memory(soak: Soak) -> None:
    """Note the server's resident memory every 10 seconds."""
    while not soak.is_over:
        for line in Path(f"/proc/{soak.options.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                soak.memory.append((soak.seconds, int(line.split()[1])))
        await asyncio.sleep(10)


async def _run(options: argparse.Namespace) -> Soak:
    expected = json.loads(Path(options.expected).read_text(encoding="utf-8"))
    async with httpx.AsyncClient(base_url=options.url, timeout=600) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        soak = Soak(options, expected, client, model)
        edits = (await client.get("/melo/edits")).json()["edits"]
        soak.live = {
            each["prompt"]: each["edit_id"]
            for each in edits
            if each["status"] == "live" and each["prompt"] in MADE_UP
        }
        clients = [ask_on(soak, random.Random(number)) for number in range(options.at_once)]
        await asyncio.gather(
            *clients, change_on(soak, random.Random("changes")), kill_on(soak), watch_memory(soak)
        )
    return soak


def main() -> None:
    """Run, and print what happened; exit with 1 if anything should not have."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("expected", help="the output of `melo query --json`")
    parser.add_argument("--pid", type=int, required=True, help="process of the server")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between requests of a client")
    parser.add_argument("--change-every", type=float, default=10)
    parser.add_argument("--kill-every", type=float, default=0)
    parser.add_argument("--kill-port", type=int)
    parser.add_argument("--start", help="command that starts the upstream")
    soak = asyncio.run(_run(parser.parse_args()))
    for name, count in sorted(soak.counts.items()):
        sys.stdout.write(f"{name:36} {count}\n")
    tenth = next(size for seconds, size in soak.memory if seconds >= soak.memory[-1][0] / 10)
    sys.stdout.write(f"resident, MiB: {tenth // 1024} at a tenth, {soak.memory[-1][1] // 1024} at the end\n")
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
