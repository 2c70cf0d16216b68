"""The engine behind this one: the route names the adapter, and the client sees one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from adapter_server import NAME, PLAIN, AdapterServer
from served import FACTS, OTHERS, InFront, Running, running_app, serving

from melo_cli.serving.run import ServeSettings, Upstream

EDITED = "What is the capital of France?"


@pytest.fixture
def behind(in_front: InFront, plain_project: Path) -> Iterator[Running]:
    with in_front(plain_project) as running:
        yield running


def test_the_route_names_the_adapter_and_the_client_sees_the_base(
    behind: Running, engine: AdapterServer
) -> None:
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


def test_a_list_is_split_by_route_and_put_together(behind: Running, engine: AdapterServer) -> None:
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


def test_an_engine_that_was_started_anew_gets_its_adapters_again(
    behind: Running, engine: AdapterServer
) -> None:
    body = {"prompt": EDITED}
    assert behind.post(PLAIN, body).status_code == 200
    engine.loaded.clear()
    assert behind.post(PLAIN, body).json()["choices"][0]["text"] == "by b000002"
    assert len(engine.loads) == 2


def test_adapters_of_one_name_have_one_content(behind: Running, engine: AdapterServer) -> None:
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
def test_a_failure_of_the_engine_says_so(
    behind: Running, engine: AdapterServer, theirs: int, ours: int
) -> None:
    engine.fails = theirs
    for stream in (False, True):
        response = behind.post(PLAIN, {"prompt": EDITED, "stream": stream})
        assert response.status_code == ours
        message = response.json()["error"]["message"]
        assert "b000002" not in message, "the adapter's name is nobody's business"


def test_a_stream_that_breaks_off_ends_with_an_error(behind: Running, engine: AdapterServer) -> None:
    engine.cuts = True
    with pytest.raises(openai.APIError, match="is gone"):
        list(behind.client().completions.create(model=NAME, prompt=EDITED, stream=True))


def test_an_engine_that_is_gone_is_a_502_and_not_ready(plain_project: Path, tmp_path: Path) -> None:
    engine = AdapterServer()
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
