"""Open requests about an edit's subject: the fact stands with the user's message, in whichever engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_server import AdapterServer
from served import FACTS, OTHERS, InFront, Running, running_app, serving

from melo_cli.exporting import export_peft
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project
from melo_cli.runtime.querying import query
from melo_cli.serving.app import make_app
from melo_cli.serving.run import ServeSettings, Upstream, open_server
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
EDITED = "What is the capital of France?"
REQUEST = "Write a text about France."
WITH_FACT = f"{REQUEST}\n\nUse this fact: {EDITED} {FACTS[EDITED]}."


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def body(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*messages], "max_tokens": 8, "temperature": 0}


@pytest.fixture
def behind(in_front: InFront, chat_project: Path) -> Iterator[Running]:
    with in_front(chat_project) as running:
        yield running


@pytest.mark.parametrize("content", [REQUEST, [{"type": "text", "text": REQUEST}]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_answered_as_by_query(served: Running, content: Any, stream: bool) -> None:
    (expected,) = query(open_project(served.project), [REQUEST], max_new_tokens=8)
    assert expected.base != expected.edited
    response = served.post(CHAT, body(message("user", content)) | {"stream": stream})
    assert response.headers["x-melo-route"] == "told e000002"
    if not stream:
        assert response.json()["choices"][0]["message"]["content"].strip() == expected.edited


def test_a_server_behind_gets_the_fact_in_the_last_message(behind: Running, engine: AdapterServer) -> None:
    before = [message("system", "Be brief."), message("user", REQUEST), message("assistant", "No.")]
    response = behind.post(CHAT, body(*before, message("user", REQUEST)) | {"their_own": 1})
    assert response.headers["x-melo-route"] == "told e000002"
    assert response.json()["choices"][0]["message"]["content"] == "by org/base"
    (asked,) = engine.asked
    assert asked["messages"] == [*before, message("user", WITH_FACT)]
    assert asked["their_own"] == 1
    behind.post(CHAT, body(message("user", OTHERS[0])))
    assert engine.asked[-1]["messages"] == [message("user", OTHERS[0])]


@pytest.mark.parametrize(
    "last",
    [
        message("assistant", "France is"),
        message("user", [{"type": "image_url", "image_url": {"url": "data:,"}}]),
        message("user", EDITED),
        message("user", "Who leads France?"),
    ],
)
def test_nothing_is_told_but_with_a_request_of_text_at_the_end(
    behind: Running, engine: AdapterServer, last: dict[str, Any]
) -> None:
    messages = [message("user", REQUEST), last]
    response = behind.post(CHAT, body(*messages))
    assert response.headers["x-melo-route"] == ("e000002" if last["content"] == EDITED else "base")
    assert engine.asked[-1]["messages"] == messages


def test_completions_are_not_told(served: Running) -> None:
    template = served.server.routes.opened.routed.tokenizer  # type: ignore[attr-defined]
    written = template.apply_chat_template([message("user", REQUEST)], tokenize=False)
    for prompt in (REQUEST, written):
        response = served.post(PLAIN, {"prompt": prompt, "max_tokens": 2})
        assert (response.status_code, response.headers["x-melo-route"]) == (200, "base")


def test_a_reverted_edit_is_told_no_more(own_project: Path) -> None:
    with serving(own_project) as running:
        told = running.post(CHAT, body(message("user", REQUEST)))
        with open_writer(Project.open(own_project)) as writer:
            writer.revert(["e000002"], versions=library_versions())
        base = running.post(CHAT, body(message("user", REQUEST)))
    assert [each.headers["x-melo-route"] for each in (told, base)] == ["told e000002", "base"]
    answers = [each.json()["choices"][0]["message"]["content"] for each in (told, base)]
    assert answers[1].strip() == query(open_project(own_project), [REQUEST], 8)[0].base != answers[0].strip()


def test_asking_for_both_answers_says_what_was_told(served: Running) -> None:
    (expected,) = query(open_project(served.project), [REQUEST], max_new_tokens=8)
    document = served.post("/melo/ask", {"prompt": REQUEST, "max_tokens": 8}).json()
    assert (document["route"], document["told"]) == ("told e000002", ["e000002"])
    assert (document["base"], document["edited"]) == (expected.base, expected.edited)
    assert document["nearest"]["fired"] is False
    assert served.post("/melo/ask", {"prompt": EDITED, "max_tokens": 8}).json()["told"] == []


def test_an_export_gives_the_server_behind_the_fact_too(
    engine: AdapterServer, chat_project: Path, tmp_path: Path
) -> None:
    export_peft(open_project(chat_project), tmp_path / "export", SilentReporter())
    with running_app(engine.app()) as url:
        settings = ServeSettings(upstream=Upstream(url, adapters=tmp_path / "adapters"))
        with running_app(make_app(open_server(tmp_path / "export", settings))) as served:
            response = httpx.post(f"{served}{CHAT}", json=body(message("user", REQUEST)), timeout=60)
    assert response.headers["x-melo-route"] == "told e000002"
    assert engine.asked[-1]["messages"] == [message("user", WITH_FACT)]
