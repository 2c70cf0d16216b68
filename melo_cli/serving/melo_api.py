"""The endpoints of melo's own: ask and explain, the edits and their history, make and revert edits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter

from melo_cli.errors import MeloError, ProjectLockedError, UnknownEditError
from melo_cli.serving.engines.engine import Routed
from melo_cli.serving.errors import ApiError
from melo_cli.serving.open_requests import question
from melo_cli.serving.openai_schema import AskBody, ChatCompletionRequest, ChatMessage, EditBody, RevertBody
from melo_cli.serving.project_editor import ProjectEditor
from melo_cli.serving.routing import BASE, Explained
from melo_cli.serving.server import Server, route_name
from melo_store.diff import EditChange, difference
from melo_store.evaluation import last_evaluation
from melo_store.project import Project
from melo_store.records import EditView, KeyMap, SnapshotInfo

_T = TypeVar("_T")
_NO_HISTORY = ApiError(404, "an export has no history and cannot be edited; serve its project instead")


def melo_router(server: Server) -> APIRouter:
    """`/melo/...`, for admins."""
    router = APIRouter(prefix="/melo", tags=["melo"])
    api = _MeloApi(server)

    @router.get("/status")
    async def status() -> dict[str, Any]:
        """Say which project is served, and what is expected of its routes."""
        return api.status()

    @router.get("/evaluation")
    async def evaluation() -> dict[str, Any]:
        """Give the figures of the last `melo eval`; empty before the first."""
        return await api.read(lambda project: dict(last_evaluation(project.path) or {}))

    @router.post("/ask")
    async def ask(body: AskBody) -> dict[str, Any]:
        """Answer a prompt with the edits and without them, and explain its route."""
        with server.admitted("/melo/ask"):
            async with server.in_time():
                return await api.ask(body)

    @router.get("/edits")
    async def edits() -> dict[str, Any]:
        """List all edits, the newest first."""
        return await api.read(lambda project: {"edits": [_edit(each) for each in reversed(project.edits())]})

    @router.get("/edits/{edit_id}")
    async def one_edit(edit_id: str) -> dict[str, Any]:
        """Show one edit."""
        return await api.read(lambda project: _edit(project.edit(edit_id)))

    @router.post("/edits", status_code=201)
    async def make_edit(body: EditBody) -> dict[str, Any]:
        """Make an edit; it is in force when the answer comes. One that did not take answers 422."""
        return await api.edit(body)

    @router.post("/revert")
    async def revert(body: RevertBody) -> dict[str, Any]:
        """Take edits back."""
        return await api.revert(body)

    @router.get("/log")
    async def log() -> dict[str, Any]:
        """List the snapshots, the newest first."""
        return await api.read(
            lambda project: {"snapshots": [_snapshot(each) for each in project.history()[::-1]]}
        )

    @router.get("/snapshots/{number}")
    async def changes(number: int) -> dict[str, Any]:
        """Show what a commit changed."""
        return await api.read(lambda project: _changes(project, number))

    return router


class _MeloApi:
    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def _project(self) -> Project:
        project = self._server.routes.project
        if project is None:
            raise _NO_HISTORY
        return project

    @property
    def _editor(self) -> ProjectEditor:
        if self._server.editor is None:
            raise _NO_HISTORY
        return self._server.editor

    def status(self) -> dict[str, Any]:
        project = self._server.routes.project
        return {
            **self._server.routes.source,
            "model": self._server.engine.model_name,
            "counts": dict(project.info.counts) if project is not None else {},
            "expected": _expected(project.key_map) if project is not None else {},
            "editable": self._server.editor is not None,
        }

    async def ask(self, body: AskBody) -> dict[str, Any]:
        explained = await self._server.routing.call(self._server.routes.explained, body.prompt)
        routed = explained.routed
        own = routed.block is not None or routed.facts
        answers = await asyncio.gather(
            self._answer(body, BASE), *([self._answer(body, routed)] if own else [])
        )
        return {
            "prompt": body.prompt,
            **_route(explained),
            "base": answers[0],
            "edited": answers[-1],
        }

    async def _answer(self, body: AskBody, routed: Routed) -> str:
        messages = [ChatMessage(role="user", content=body.prompt)]
        request = ChatCompletionRequest.model_validate(
            {"messages": messages, "max_tokens": body.max_tokens, "temperature": 0.0}
        )
        answer = await self._server.engine.answer(question(request, messages, routed))
        return str(answer.choices[0]["message"]["content"]).strip()

    async def edit(self, body: EditBody) -> dict[str, Any]:
        outcome = await _ours(self._editor.edit(body))
        await self._server.routing.call(self._server.routes.follow)
        if outcome.status == "failed":
            raise ApiError(
                422,
                f"{outcome.edit_id} did not take: the model still answers {outcome.answer!r}",
                code="edit_failed",
            )
        return {
            "edit_id": outcome.edit_id,
            "status": outcome.status,
            "before": outcome.before,
            "answer": outcome.answer,
            "contradicts": None if outcome.contradicts is None else asdict(outcome.contradicts),
            "snapshot": self._project.snapshot,
        }

    async def revert(self, body: RevertBody) -> dict[str, Any]:
        snapshot = await _ours(self._editor.revert(body.edits))
        await self._server.routing.call(self._server.routes.follow)
        return {"reverted": body.edits, "snapshot": snapshot}

    async def read(self, look: Callable[[Project], _T]) -> _T:
        """What the newest snapshot says."""
        return await _ours(asyncio.to_thread(look, self._project))


async def _ours(work: Awaitable[_T]) -> _T:
    """The result of work in the store or with the model.

    Raises:
        ApiError: it cannot be done, for the reason that melo gives.
    """
    try:
        return await work
    except UnknownEditError as error:
        raise ApiError(404, str(error)) from error
    except ProjectLockedError as error:
        raise ApiError(409, str(error), headers={"Retry-After": "1"}) from error
    except MeloError as error:
        raise ApiError(400, str(error)) from error


def _expected(key_map: KeyMap | None) -> dict[str, Any]:
    """What calibration measured of routes, by kind of prompt; empty if it left no figures."""
    kept: Any = key_map.settings.get("learnt") if key_map is not None else None
    return {name: kept.get(name) for name in ("threshold", "corpus", "own", "counts")} if kept else {}


def _route(explained: Explained) -> dict[str, Any]:
    nearest = explained.routed.route.nearest
    return {
        "route": route_name(explained.routed.route),
        "told": list(explained.routed.route.told),
        "nearest": None
        if nearest is None
        else {
            "edit_id": nearest.edit_id,
            "prompt": explained.nearest,
            "probability": nearest.probability,
            "fired": explained.routed.route.fired is not None,
        },
        "against": explained.against,
    }


def _edit(view: EditView) -> dict[str, Any]:
    record = view.record
    return {
        "edit_id": record.edit_id,
        "prompt": record.prompt,
        "target": record.target,
        "subject": record.subject,
        "rephrases": list(record.rephrases),
        "status": view.status,
        "superseded_by": view.superseded_by,
        "block": record.block,
        "created_at": record.created_at.isoformat(),
    }


def _snapshot(info: SnapshotInfo) -> dict[str, Any]:
    return {
        "snapshot": info.number,
        "parent": info.parent,
        "created_at": info.created_at.isoformat(),
        "action": info.action,
        "command": info.command,
        "counts": dict(info.counts),
    }


def _changes(project: Project, number: int) -> dict[str, Any]:
    after = Project.open(project.path, at=number)
    parent = after.info.parent
    changes = difference(Project.open(project.path, at=parent), after) if parent is not None else []
    return {**_snapshot(after.info), "changes": [_change(each) for each in changes]}


def _change(change: EditChange) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "edit_id": change.record.edit_id,
        "prompt": change.record.prompt,
        "target": change.record.target,
        "before": change.before,
        "after": change.after,
        "superseded_by": change.superseded_by,
    }
