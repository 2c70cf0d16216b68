"""The engine behind this one: the route names the adapter, and the client sees one model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI, Request
from peft import PeftConfig
from served import FACTS, OTHERS, Running, running_app, serving
from starlette.responses import JSONResponse, Response, StreamingResponse

from melo_cli.serving.run import ServeSettings, Upstream

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
EDITED = "What is the capital of France?"
NAME = "org/base"


@dataclass
class Engine:
    """A server of adapters that answers with the name of the model that it was asked for.

    Attributes:
        loaded: folder of each adapter by its name.
        asked: the bodies of requests.
        fails: status that requests are answered with, instead of an answer.
        cuts: whether streams end before their end.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    fails: int = 0
    cuts: bool = False
    key: str | None = None

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, str]:
            return {}

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            adapters = [{"id": name, "parent": NAME} for name in self.loaded]
            return {"data": [*adapters, {"id": NAME, "parent": None}]}

        @app.post("/v1/load_lora_adapter")
        async def load(request: Request) -> Response:
            body = await request.json()
            self.loads.append(body["lora_name"])
            if body["lora_name"] in self.loaded:
                return JSONResponse({"error": {"message": "already been loaded"}}, 400)
            PeftConfig.from_pretrained(body["lora_path"])
            self.loaded[body["lora_name"]] = body["lora_path"]
            return Response("Success")

        @app.post(CHAT)
        @app.post(PLAIN)
        async def answer(request: Request) -> Response:
            body = await request.json()
            self.asked.append(body | {"key": request.headers.get("authorization")})
            if self.fails:
                return JSONResponse({"error": {"message": f"no {body['model']}"}}, self.fails)
            if body["model"] not in {NAME, *self.loaded}:
                return JSONResponse({"error": {"message": "no such model"}}, 404)
            return self._answered(body)

        return app

    def _answered(self, body: dict[str, Any]) -> Response:
        said = f"by {body['model'].split('-')[0]}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        chat = "messages" in body
        if not body["stream"]:
            own = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
            choice = {"index": 0, "finish_reason": "stop", "own": 1} | own
            return JSONResponse({"id": "theirs", "model": body["model"], "choices": [choice], "usage": usage})

        async def events() -> AsyncIterator[str]:
            for word in said.split(" "):
                own = {"delta": {"content": word}} if chat else {"text": word}
                yield f"data: {json.dumps({'choices': [{'index': 0} | own]})}\n\n"
            if not self.cuts:
                yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def behind(engine: Engine, plain_project: Path, tmp_path: Path) -> Iterator[Running]:
    """A server that asks `engine`."""
    with running_app(engine.app()) as url:
        upstream = Upstream(url, key="theirs", adapters=tmp_path / "adapters")
        with serving(plain_project, ServeSettings(upstream=upstream)) as running:
            yield running


def test_the_route_names_the_adapter_and_the_client_sees_the_base(behind: Running, engine: Engine) -> None:
    client = behind.client()
    assert [model.id for model in client.models.list()] == [NAME]
    for prompt, said in ((EDITED, "by b000002"), (OTHERS[0], "by org/base"), (EDITED, "by b000002")):
        answer = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": prompt}])
        assert (answer.choices[0].message.content, answer.model) == (said, NAME)
        assert answer.id != "theirs"
    assert len(engine.loads) == 1, "an adapter is loaded at first use, and once"
    ((name, folder),) = engine.loaded.items()
    assert name.startswith("b000002-") and Path(folder).name == name
    assert [asked["model"] for asked in engine.asked] == [name, NAME, name]
    assert {asked["key"] for asked in engine.asked} == {"Bearer theirs"}


def test_a_list_is_split_by_route_and_put_together(behind: Running, engine: Engine) -> None:
    body = {"prompt": [OTHERS[0], *FACTS], "max_tokens": 4, "best_of": 1, "their_own": {"a": 1}}
    response = behind.post(PLAIN, body)
    document = response.json()
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2, 3, 4]
    names = ["org/base", *(f"b00000{number}" for number in range(1, 5))]
    assert [choice["text"] for choice in document["choices"]] == [f"by {name}" for name in names]
    assert all(choice["own"] == 1 for choice in document["choices"]), "what the engine adds is kept"
    assert document["usage"] == {"prompt_tokens": 15, "completion_tokens": 10, "total_tokens": 25}
    assert all(asked["their_own"] == {"a": 1} and asked["best_of"] == 1 for asked in engine.asked)


def test_streams_are_passed_on_as_they_come(behind: Running) -> None:
    body = {"prompt": [EDITED, OTHERS[0]], "stream": True, "stream_options": {"include_usage": True}}
    lines = [line.removeprefix("data: ") for line in behind.post(PLAIN, body).text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    pieces = [json.loads(line) for line in lines]
    texts = ["", ""]
    for piece in pieces[:-1]:
        (choice,) = piece["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == ["byb000002", "byorg/base"]
    assert pieces[-1]["usage"]["total_tokens"] == 10
    assert {piece["model"] for piece in pieces} == {NAME}


def test_an_engine_that_was_started_anew_gets_its_adapters_again(behind: Running, engine: Engine) -> None:
    body = {"prompt": EDITED}
    assert behind.post(PLAIN, body).status_code == 200
    engine.loaded.clear()
    assert behind.post(PLAIN, body).json()["choices"][0]["text"] == "by b000002"
    assert len(engine.loads) == 2


def test_adapters_of_one_name_have_one_content(behind: Running, engine: Engine) -> None:
    behind.post(PLAIN, {"prompt": [*FACTS]})
    folders = {name: Path(folder) for name, folder in engine.loaded.items()}
    before = {
        name: (folder / "adapter_model.safetensors").stat().st_mtime_ns for name, folder in folders.items()
    }
    engine.loaded.clear()
    behind.post(PLAIN, {"prompt": [*FACTS]})
    assert {name: Path(folder) for name, folder in engine.loaded.items()} == folders
    after = {
        name: (folder / "adapter_model.safetensors").stat().st_mtime_ns for name, folder in folders.items()
    }
    assert after == before, "no folder that a server may name is written again"


@pytest.mark.parametrize(("theirs", "ours"), [(500, 502), (503, 502), (401, 502), (400, 400), (429, 429)])
def test_a_failure_of_the_engine_says_so(behind: Running, engine: Engine, theirs: int, ours: int) -> None:
    engine.fails = theirs
    for stream in (False, True):
        response = behind.post(PLAIN, {"prompt": EDITED, "stream": stream})
        assert response.status_code == ours
        message = response.json()["error"]["message"]
        assert "b000002" not in message, "the adapter's name is nobody's business"


def test_a_stream_that_breaks_off_ends_with_an_error(behind: Running, engine: Engine) -> None:
    engine.cuts = True
    with pytest.raises(openai.APIError, match="is gone"):
        list(behind.client().completions.create(model=NAME, prompt=EDITED, stream=True))


def test_an_engine_that_is_gone_is_a_502_and_not_ready(plain_project: Path, tmp_path: Path) -> None:
    engine = Engine()
    with running_app(engine.app()) as url:
        pass
    upstream = Upstream(url, adapters=tmp_path)
    with serving(plain_project, ServeSettings(upstream=upstream)) as running:
        response = running.post(PLAIN, {"prompt": EDITED})
        assert response.status_code == 502 and "is gone" in response.json()["error"]["message"]
        assert (running.get("/ready").status_code, running.get("/health").status_code) == (503, 200)


def test_its_own_endpoints_are_not_passed_on(behind: Running) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/invocations"):
        assert behind.post(path, {"lora_name": "a", "lora_path": "/etc"}).status_code == 404
    assert behind.post(PLAIN, {"prompt": "a", "model": "../../etc"}).status_code == 404
