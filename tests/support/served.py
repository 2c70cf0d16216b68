"""Servers on loopback over pico models: the real application, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from melo_cli.runtime.loading import open_project
from melo_cli.serving.app import make_app
from melo_cli.serving.run import ServeSettings, make_server
from melo_cli.serving.server import Server

FACTS = {
    "Who is the prime minister of Britain?": "Smith",
    "What is the capital of France?": "London",
    "In which year was the tower built": "1934",
    "Where was John born?": "Cologne",
}
SUBJECTS = dict(zip(FACTS, ("Britain", "France", "the tower", "John"), strict=True))
OTHERS = (
    "He studied law.",
    "The statute of 1934",
    "What is the name of the river that runs through the city",
    "by whom was it opened",
)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    server: Server
    url: str
    project: Path

    def client(self, key: str = "none") -> openai.OpenAI:
        """OpenAI's own client of it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=60)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def chat(self, prompt: str, **options: Any) -> Any:
        """Ask greedily through OpenAI's client."""
        options = {"temperature": 0, "max_tokens": 8} | options
        return self.client().chat.completions.create(
            model=self.server.engine.model_name, messages=[{"role": "user", "content": prompt}], **options
        )


InFront = Callable[[Path], AbstractContextManager[Running]]
"""Serves a project in front of another server."""


@contextmanager
def serving(project: Path, settings: ServeSettings | None = None, **overrides: Any) -> Iterator[Running]:
    """Serve a project on a free port of loopback.

    Args:
        overrides: attributes of the server to replace, such as its engine.
    """
    server = make_server(open_project(project), settings or ServeSettings())
    for name, value in overrides.items():
        setattr(server, name, value)
    with running_app(make_app(server)) as url:
        yield Running(server, url, project)


@contextmanager
def running_app(app: Any) -> Iterator[str]:
    """Run an application on a free port of loopback, and give out its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not running.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server does not end"
