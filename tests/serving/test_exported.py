"""`melo serve` of a `peft` export: its router here, its adapters in the server behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from adapter_server import CHAT, NAME, PLAIN, AdapterServer
from served import FACTS, OTHERS, running_app

from melo_cli.errors import ServeError
from melo_cli.exporting import export_gguf, export_peft
from melo_cli.exporting.adapters import read_adapter
from melo_cli.exporting.folder import export_record
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project
from melo_cli.serving.app import make_app
from melo_cli.serving.run import ServeSettings, Upstream, open_server
from melo_store.project import Project


@pytest.fixture(scope="module")
def export(plain_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "adapters"
    export_peft(open_project(plain_project), folder, SilentReporter())
    return folder


@pytest.fixture
def behind() -> AdapterServer:
    return AdapterServer()


@pytest.fixture
def client(export: Path, behind: AdapterServer, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the export, which is served in front of `behind`."""
    with running_app(behind.app()) as url:
        settings = ServeSettings(upstream=Upstream(url, adapters=tmp_path / "adapters"))
        with running_app(make_app(open_server(export, settings))) as served:
            yield httpx.Client(base_url=served, timeout=60)


def test_its_prompts_get_the_adapters_of_their_edits(client: httpx.Client, behind: AdapterServer) -> None:
    prompts = [OTHERS[0], *FACTS]
    document = client.post(PLAIN, json={"prompt": prompts, "max_tokens": 4}).json()
    names = [NAME, *(f"b00000{number}" for number in range(1, 5))]
    assert [choice["text"] for choice in document["choices"]] == [f"by {name}" for name in names]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": next(iter(FACTS))}]
    answer = client.post(CHAT, json={"messages": messages})
    assert answer.json()["choices"][0]["message"]["content"] == "by b000001"
    assert answer.headers["x-melo-route"] == "e000001"
    assert {name.split("-")[0] for name in behind.loaded} == set(names[1:])


def test_what_an_adapter_holds_is_the_block(export: Path, plain_project: Path) -> None:
    for block_id in Project.open(plain_project).block_ids():
        block, adapter = (
            Project.open(plain_project).block(block_id),
            read_adapter(export / "adapters" / block_id),
        )
        assert adapter.block_id == block_id and adapter.slices.keys() == block.slices.keys()
        for name, part in block.slices.items():
            theirs = adapter.slices[name]
            np.testing.assert_array_equal(theirs.A, part.A.astype(np.float32))
            np.testing.assert_array_equal(theirs.B, part.B.astype(np.float32))
            assert theirs.scale == part.scale


def test_an_adapter_that_a_server_names_outlives_the_export(
    export: Path, behind: AdapterServer, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(export, tmp_path / "own"))
    with running_app(behind.app()) as url:
        settings = ServeSettings(upstream=Upstream(url, adapters=tmp_path / "adapters"))
        with running_app(make_app(open_server(own, settings))) as served:
            assert httpx.post(f"{served}{PLAIN}", json={"prompt": next(iter(FACTS))}).status_code == 200
            shutil.rmtree(own)
            ((_, folder),) = behind.loaded.items()
            assert (Path(folder) / "adapter_model.safetensors").is_file()


def test_it_is_asked_and_explained_and_has_no_history(client: httpx.Client, plain_project: Path) -> None:
    status = client.get("/melo/status").json()
    assert (status["project"], status["editable"], status["counts"]) == ("facts", False, {})
    assert status["snapshot"] == Project.open(plain_project).snapshot
    prompt = next(iter(FACTS))
    asked = client.post("/melo/ask", json={"prompt": prompt}).json()
    assert (asked["route"], asked["nearest"]["prompt"]) == ("e000001", prompt)
    assert (asked["base"], asked["edited"]) == (f"by {NAME}", "by b000001")
    answers = [
        client.get("/melo/edits"),
        client.get("/melo/log"),
        client.post("/melo/edits", json={"prompt": "Who?", "target": "Nobody"}),
        client.post("/melo/revert", json={"edits": ["e000001"]}),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert all("serve its project" in answer.json()["error"]["message"] for answer in answers)


def test_adapters_alone_are_refused(export: Path) -> None:
    with pytest.raises(ServeError, match="--upstream"):
        open_server(export, ServeSettings())


def test_another_format_is_refused(chat_project: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs melo-cli[gguf]")
    export_gguf(open_project(chat_project), tmp_path / "gguf", SilentReporter())
    record = export_record(tmp_path / "gguf")
    assert record is not None and record["format"] == "gguf"
    with pytest.raises(ServeError, match="--format routed or peft"):
        open_server(tmp_path / "gguf", ServeSettings())
