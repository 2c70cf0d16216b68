"""Who may ask and edit, and what one client may take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import OTHERS, Running, serving

from melo_cli.errors import ServeError
from melo_cli.serving.run import ServeSettings
from melo_cli.serving.settings import Keys, Limits, require_keys

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": OTHERS[0]}], "max_tokens": 2}
USER, ADMIN = {"authorization": "Bearer one"}, {"authorization": "bearer boss"}


@pytest.fixture(scope="module")
def guarded(chat_project: Path) -> Iterator[Running]:
    keys = Keys(users=("one", "two"), admins=("boss",))
    with serving(chat_project, ServeSettings(keys=keys)) as running:
        yield running


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer"},
            {"authorization": "Bearer thr\xe9e"},
            {"authorization": "Basic one"},
        ],
    )
    def test_without_a_right_key_nothing_is_answered(self, guarded: Running, headers: dict[str, str]) -> None:
        for path in ("/v1/models", "/metrics", "/melo/edits", "/melo/log", "/melo/status"):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            response = httpx.get(f"{guarded.url}{path}", headers=raw)  # type: ignore[arg-type]
            assert response.status_code == 401
            assert response.json()["error"]["type"] == "authentication_error"
        assert guarded.post(CHAT, BODY).status_code == 401

    def test_users_ask_and_admins_edit(self, guarded: Running) -> None:
        assert guarded.post(CHAT, BODY, **USER).status_code == 200
        assert guarded.post(CHAT, BODY, **ADMIN).status_code == 200
        assert guarded.get("/melo/edits", **USER).status_code == 401
        assert guarded.post("/melo/revert", {"edits": ["e000001"]}, **USER).status_code == 401
        assert guarded.get("/melo/edits", **ADMIN).status_code == 200

    def test_health_and_the_page_need_none(self, guarded: Running) -> None:
        assert [guarded.get(path).status_code for path in ("/health", "/ready", "/")] == [200, 200, 200]

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
    def test_nothing_but_loopback_without_keys(self, host: str) -> None:
        for keys in (Keys(), Keys(users=("a",)), Keys(admins=("a",))):
            with pytest.raises(ServeError, match="open to other machines"):
                require_keys(host, keys)
        require_keys(host, Keys(users=("a",), admins=("b",)))
        for loopback in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
            require_keys(loopback, Keys())

    def test_a_page_of_another_site_cannot_ask_through_the_browser(self, served: Running) -> None:
        """Without a key: its host name leads here, or its form sends a body that is no JSON."""
        assert served.post(CHAT, BODY, host="evil.example").status_code == 403
        assert served.get("/melo/edits", host="evil.example:80").status_code == 403
        as_form = httpx.post(
            f"{served.url}{CHAT}", content=b'{"messages": []}', headers={"content-type": "text/plain"}
        )
        assert as_form.status_code == 415
        for malformed in ("[", "[::1", "a]b"):
            assert served.get("/melo/edits", host=malformed).status_code == 403
        for local in ("localhost:9", "127.0.0.1", "127.9.9.9:80", "[::1]:80"):
            assert served.get("/melo/edits", host=local).status_code == 200


class TestLimits:
    def test_a_large_body_is_refused_before_it_is_read(self, chat_project: Path) -> None:
        with serving(chat_project, ServeSettings(limits=Limits(body_bytes=500))) as running:
            large = {"messages": [{"role": "user", "content": "a" * 600}]}
            assert running.post(CHAT, large).status_code == 413

            def pieces() -> Iterator[bytes]:
                for _ in range(100):
                    yield b" " * 100

            streamed = httpx.post(
                f"{running.url}{CHAT}", content=pieces(), headers={"content-type": "application/json"}
            )
            assert streamed.status_code == 413
            assert running.post(CHAT, BODY).status_code == 200

    def test_too_many_at_once_are_told_to_come_back(
        self, chat_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(chat_project, ServeSettings(limits=Limits(queue=2))) as running:
            go_on = _held(running, monkeypatch)
            waiting = [threading.Thread(target=running.post, args=(CHAT, BODY)) for _ in range(2)]
            for thread in waiting:
                thread.start()
            _until(lambda: running.server.in_flight == 2)
            refused = running.post(CHAT, BODY)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert running.get("/health").status_code == 200
            go_on.set()
            for thread in waiting:
                thread.join()
            assert running.post(CHAT, BODY).status_code == 200

    def test_what_takes_too_long_is_given_up(
        self, chat_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(chat_project, ServeSettings(limits=Limits(timeout=0.3))) as running:
            go_on = _held(running, monkeypatch)
            assert running.post(CHAT, BODY).status_code == 504
            go_on.set()
            _until(lambda: running.server.in_flight == 0 and not _rows(running))

    def test_a_client_that_hangs_up_stops_its_row(
        self, chat_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long = BODY | {"max_tokens": 100, "ignore_eos": True}
        with serving(chat_project) as running:
            go_on = _held(running, monkeypatch)
            for stream in (False, True):
                go_on.clear()
                with pytest.raises(httpx.TimeoutException):
                    httpx.post(f"{running.url}{CHAT}", json=long | {"stream": stream}, timeout=1.0)
                    with httpx.stream("POST", f"{running.url}{CHAT}", json=long, timeout=1.0):
                        pass
                _until(lambda: running.server.in_flight == 0)
                go_on.set()
                _until(lambda: not _rows(running))

    def test_prompts_and_answers_are_in_no_log(
        self, served: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            secret = "a secret of the statute"
            served.chat(secret)
            served.post(CHAT, {"messages": [{"role": "user", "content": secret}], "temperature": "hot"})
        assert all("secret" not in record.getMessage() for record in caplog.records if record.name != "httpx")


def _held(running: Running, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have the engine wait at each step until the event is set."""
    batch = running.server.engine._thread._batch  # type: ignore[attr-defined]
    go_on, step = threading.Event(), type(batch).step

    def slow_step(self: object) -> None:
        assert go_on.wait(60)
        step(self)

    monkeypatch.setattr(type(batch), "step", slow_step)
    return go_on


def _rows(running: Running) -> int:
    return len(running.server.engine._thread._batch.sequences)  # type: ignore[attr-defined]


def _until(holds: object) -> None:
    deadline = time.monotonic() + 30
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
