"""Edits arrive while the server runs: made by other processes, by its own API, and taken back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from served import FACTS, OTHERS, Running, serving

from melo_cli.runtime.loading import open_project
from melo_cli.serving.run import ServeSettings
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

CHAT = "/v1/chat/completions"
EDITED = "What is the capital of France?"


def revert(project: Path, *edit_ids: str) -> None:
    """As another process does."""
    with open_writer(Project.open(project)) as writer:
        writer.revert(edit_ids, versions=library_versions())


def route_of(running: Running, prompt: str) -> str:
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 2, "temperature": 0}
    return running.post(CHAT, body).headers["x-melo-route"]


def test_a_commit_of_another_process_is_in_force_at_the_next_request(own_project: Path) -> None:
    with serving(own_project) as running:
        assert route_of(running, EDITED) == "e000002"
        revert(own_project, "e000002")
        assert route_of(running, EDITED) == "base"
        assert route_of(running, next(iter(FACTS))) == "e000001"


def test_the_snapshot_is_shown_even_while_nobody_asks(own_project: Path) -> None:
    with serving(own_project) as running:
        before = running.get("/melo/status").json()["snapshot"]
        revert(own_project, "e000001")
        deadline = time.monotonic() + 30
        while running.get("/melo/status").json()["snapshot"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert f"melo_snapshot {before + 1}.0" in running.get("/metrics").text


def test_an_answer_in_flight_keeps_the_block_that_it_began_with(
    own_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its edit is reverted, and its block removed from the disk, before its second token is written."""
    with serving(own_project) as running:
        whole = running.chat(EDITED, max_tokens=8).choices[0].message.content
        batch = running.server.engine._thread._batch  # type: ignore[attr-defined]
        go_on, step = threading.Event(), type(batch).step

        def slow_step(self: object) -> None:
            assert go_on.wait(60)
            step(self)

        monkeypatch.setattr(type(batch), "step", slow_step)
        pieces = running.chat(EDITED, stream=True, max_tokens=8)
        first = next(iter(pieces))
        revert(own_project, "e000002")
        with open_writer(Project.open(own_project)) as writer:
            writer.keep_from(writer.project.snapshot)
        go_on.set()
        rest = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert (first.choices[0].delta.content or "") + rest == whole
        assert route_of(running, EDITED) == "base"


def test_only_what_writes_answers_keeps_helpers_of_torch(
    own_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(own_project, ServeSettings(threads=3)) as running:
        batch = running.server.engine._thread._batch  # type: ignore[attr-defined]
        step, seen = type(batch).step, []

        def noted(self: Any) -> None:
            seen.append(torch.get_num_threads())
            step(self)

        monkeypatch.setattr(type(batch), "step", noted)
        running.chat(EDITED)
        assert set(seen) == {3}
        assert running.post("/melo/edits", {"prompt": "Where is it", "target": "Paris"}).status_code == 201
        assert not [each for each in threading.enumerate() if each.name.startswith("melo-edit_")]


class TestEditing:
    def test_an_edit_is_made_checked_and_served_at_once(self, own_project: Path) -> None:
        prompt, target = "Where does the river end", "Paris"
        with serving(own_project) as running:
            made = running.post("/melo/edits", {"prompt": prompt, "target": target})
            assert made.status_code == 201
            document = made.json()
            assert (document["status"], document["answer"]) == ("solved", target)
            answer = running.chat(prompt)
            assert answer.choices[0].message.content.strip() == target
            assert route_of(running, prompt) == document["edit_id"]
            assert running.chat(EDITED).choices[0].message.content.strip() == FACTS[EDITED]
            edits = running.get("/melo/edits").json()["edits"]
            assert (edits[0]["edit_id"], edits[0]["target"], edits[0]["status"]) == (
                document["edit_id"],
                target,
                "live",
            )
            assert running.get(f"/melo/edits/{document['edit_id']}").json() == edits[0]

            back = running.post("/melo/revert", {"edits": [document["edit_id"]]})
            assert back.json()["snapshot"] == document["snapshot"] + 1
            assert route_of(running, prompt) == "base"
            newest, made_by = running.get("/melo/log").json()["snapshots"][:2]
            assert (newest["action"], made_by["action"], made_by["command"]) == (
                "revert",
                "edit",
                "melo serve",
            )
            changes = running.get(f"/melo/snapshots/{newest['snapshot']}").json()["changes"]
            assert [(each["kind"], each["edit_id"]) for each in changes] == [("removed", document["edit_id"])]
        assert open_project(own_project).project.edit(document["edit_id"]).status == "reverted"

    def test_answers_go_on_while_an_edit_is_trained(
        self, own_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from melo_cli.serving import project_editor

        asked, train = threading.Event(), project_editor.edit_opened

        def slow(*arguments: object, **options: object) -> object:
            assert asked.wait(60)
            return train(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(project_editor, "edit_opened", slow)
        with serving(own_project) as running:
            results: list[httpx.Response] = []
            body = {"prompt": "Where does the river end", "target": "Paris"}
            thread = threading.Thread(target=lambda: results.append(running.post("/melo/edits", body)))
            thread.start()
            assert running.chat(EDITED).choices[0].message.content.strip() == FACTS[EDITED]
            asked.set()
            thread.join()
            assert results[0].status_code == 201

    @pytest.mark.parametrize(
        ("body", "status", "message"),
        [
            ({"prompt": "a"}, 400, "target: "),
            ({"prompt": "a", "target": "b", "colour": 1}, 400, "colour: "),
            ({"prompt": " ", "target": "b"}, 400, "the prompt is empty"),
            ({"prompt": "a " * 500, "target": "b"}, 400, "tokens, but the model takes"),
        ],
    )
    def test_an_edit_that_cannot_be_made_says_why_and_leaves_the_project_as_it_was(
        self, served: Running, body: dict[str, object], status: int, message: str
    ) -> None:
        before = served.get("/melo/status").json()["snapshot"]
        response = served.post("/melo/edits", body)
        assert (response.status_code, message in response.json()["error"]["message"]) == (status, True)
        assert served.get("/melo/status").json()["snapshot"] == before

    def test_an_edit_that_does_not_take_is_refused_and_changes_no_route(
        self, own_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from melo_cli.editing import groups

        monkeypatch.setattr(groups, "solve", _unsolved(groups.solve))
        with serving(own_project) as running:
            response = running.post("/melo/edits", {"prompt": "Where does the river end", "target": "Paris"})
            assert response.status_code == 422
            assert "did not take: the model still answers" in response.json()["error"]["message"]
            assert route_of(running, "Where does the river end") == "base"

    def test_another_writer_is_a_conflict(self, own_project: Path) -> None:
        with serving(own_project) as running, open_writer(Project.open(own_project)):
            for path, body in (
                ("/melo/edits", {"prompt": "Where does the river end", "target": "Paris"}),
                ("/melo/revert", {"edits": ["e000001"]}),
            ):
                response = running.post(path, body)
                assert response.status_code == 409
                assert response.headers["retry-after"]

    def test_unknown_edits_and_snapshots_are_not_found(self, served: Running) -> None:
        assert served.get("/melo/edits/e999999").status_code == 404
        assert served.get("/melo/snapshots/99").status_code == 404
        assert served.post("/melo/revert", {"edits": ["e999999"]}).status_code == 404


def _unsolved(solve: Callable[..., object]) -> Callable[..., object]:
    """Training that is stopped before it has begun."""

    def work(opened: object, edits: object, on_step: object) -> object:
        recipe = opened.recipe  # type: ignore[attr-defined]
        training = recipe.training.model_copy(update={"max_steps": 1})
        from dataclasses import replace

        short = replace(opened, recipe=recipe.model_copy(update={"training": training}))  # type: ignore[type-var]
        return solve(short, edits, on_step)

    return work


class TestAsking:
    def test_both_answers_and_what_gave_them(self, served: Running) -> None:
        document = served.post("/melo/ask", {"prompt": EDITED, "max_tokens": 8}).json()
        assert (document["route"], document["edited"]) == ("e000002", FACTS[EDITED])
        assert document["base"] != document["edited"]
        assert document["nearest"] | {"probability": None} == {
            "edit_id": "e000002",
            "prompt": EDITED,
            "probability": None,
            "fired": True,
        }
        other = served.post("/melo/ask", {"prompt": OTHERS[0], "max_tokens": 8}).json()
        assert (other["route"], other["edited"]) == ("base", other["base"])
        assert json.loads(json.dumps(other["nearest"]))["fired"] is False
