"""`melo serve` as a process: it says where it listens, ends politely, and refuses what is unsafe."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

Melo = Callable[..., Any]
EDITED = "What is the capital of France?"


@pytest.fixture(scope="module")
def served_folder(
    tmp_path_factory: pytest.TempPathFactory,
    melo_process: Melo,
    write_recipe: Callable[..., None],
    pico_llama: Path,
) -> Path:
    """A folder with a project on a model that writes text. Read it only."""
    folder = tmp_path_factory.mktemp("served")
    write_recipe(folder, "chat", pico_llama, "custom", [{"prompt": EDITED, "target": "Paris"}])
    assert melo_process("edit", "chat.yaml", "--set", "model.template=chat", cwd=folder).code == 0
    return folder


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "melo_cli", "serve", "--port", str(port), *options]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        try:
            yield process, url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_an_idle_connection_is_kept_longer_than_clients_keep_theirs(served_folder: Path) -> None:
    """httpx gives one up after 5 s: a server that does the same may close it as a request is on its way."""
    with serving(served_folder) as (_, url):
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        for pause in (6.0, 0.0):
            connection.request("GET", "/health")
            with connection.getresponse() as response:
                assert (response.status, response.read()) == (200, b'{"status":"ok"}')
            assert connection.sock is not None, "the server keeps it open"
            time.sleep(pause)
        connection.close()


def test_sigterm_finishes_what_is_in_flight(served_folder: Path) -> None:
    with serving(served_folder, "--model-name", "ours") as (process, url):
        body = {
            "model": "ours",
            "messages": [{"role": "user", "content": "Where does the river end"}],
            "max_tokens": 90,
            "ignore_eos": True,
            "n": 8,
        }
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 30
        while "melo_requests_in_flight 1.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline and not answers
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers[0].status_code == 200
        assert {len(choice["message"]["content"]) > 0 for choice in answers[0].json()["choices"]} == {True}
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert f"melo: serving ours on {url}\n" in said
        assert "melo: no keys are set" in said
        assert "Traceback" not in said


class TestRefusals:
    def test_other_machines_need_keys(self, edited: Path, melo: Melo) -> None:
        run = melo("serve", "facts", "--host", "0.0.0.0")
        assert run.code == 2
        assert run.error == (
            "--host 0.0.0.0: it would be open to other machines without a key for users and admins; set "
            "MELO_API_KEY and MELO_ADMIN_KEY, or give --api-key-file and --admin-key-file"
        )

    def test_a_port_that_is_taken(self, edited: Path, melo: Melo) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            run = melo("serve", "facts", "--port", taken.getsockname()[1])
        assert run.code == 2
        assert "choose another --port" in run.error

    def test_a_classifier_writes_no_text(self, edited: Path, melo: Melo) -> None:
        run = melo("serve", "cases")
        assert (run.code, "writes no text; ask it with `melo query`" in run.error) == (2, True)

    @pytest.mark.parametrize(
        ("content", "message"), [(None, "cannot be read"), ("\n \n", "there is no key in it")]
    )
    def test_key_files_that_hold_no_key(
        self, own_edited: Path, melo: Melo, content: str | None, message: str
    ) -> None:
        if content is not None:
            (own_edited / "keys").write_text(content)
        run = melo("serve", "facts", "--api-key-file", "keys")
        assert (run.code, message in run.error) == (2, True)

    def test_an_unknown_kind_of_upstream(self, edited: Path, melo: Melo) -> None:
        run = melo("serve", "facts", "--upstream", "http://127.0.0.1:1", "--upstream-kind", "ollama")
        assert run.code == 2
        assert "choose one of vllm, sglang, lorax" in run.error
