"""Routes of prompts, taken in a thread of their own: of those that wait, all at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from melo_cli.errors import MeloError
from melo_cli.runtime.loading import OpenProject, follow_newest
from melo_cli.runtime.querying import speaks_against
from melo_cli.scope.core.rules import NO_ROUTE, Route
from melo_cli.scope.core.turns import LastUserTurn
from melo_cli.serving.engines.engine import Routed
from melo_cli.torch_threads import pool_of_one
from melo_store.project import Project
from melo_store.records import Block

_T = TypeVar("_T")
_log = logging.getLogger("melo.serve")
BASE = Routed(NO_ROUTE, None)
"""The route of what is no text, or empty."""


@dataclass(frozen=True)
class Explained:
    """A route with what speaks for and against it.

    Attributes:
        nearest: prompt of the nearest edit, whether it fired or not; None if there is no edit.
        against: what speaks against the nearest edit, if it did not fire.
    """

    routed: Routed
    nearest: str | None
    against: str | None


class RouteSource(Protocol):
    """Where routes come from; used by one thread."""

    @property
    def project(self) -> Project | None:
        """The newest snapshot; None of an export, which has no history."""

    @property
    def source(self) -> Mapping[str, str | int]:
        """What is served: `project`, `snapshot` and `base`."""

    def follow(self) -> None:
        """Go on with the newest snapshot."""

    def routed(self, texts: Sequence[str]) -> list[Routed]:
        """The routes of prompts, by the newest edits."""

    def explained(self, text: str) -> Explained:
        """The route of one prompt, and why."""

    def last_turn(self, text: str) -> str:
        """The last user turn of a text that the chat template has written; any other text as it is."""


class ProjectRoutes:
    """Routes by the newest snapshot of a project; a commit is in force from the next prompt on.

    Args:
        opened: a project whose model no other thread uses.
    """

    def __init__(self, opened: OpenProject) -> None:
        self.opened = opened
        self._turns = LastUserTurn(opened.routed.tokenizer)
        self._failed: str | None = None

    @property
    def project(self) -> Project:
        return self.opened.project

    @property
    def source(self) -> Mapping[str, str | int]:
        project = self.project
        return {"project": project.name, "snapshot": project.snapshot, "base": project.base.describe()}

    def last_turn(self, text: str) -> str:
        return self._turns.within(text)

    def routed(self, texts: Sequence[str]) -> list[Routed]:
        self.follow()
        told = self.opened.told
        return [
            Routed(route, self._block(route), tuple(told.facts(route))) for route in self.opened.routes(texts)
        ]

    def explained(self, text: str) -> Explained:
        (routed,) = self.routed([text])
        nearest = routed.route.nearest
        return Explained(
            routed,
            self.opened.project.edit(nearest.edit_id).prompt if nearest is not None else None,
            speaks_against(self.opened, text, routed.route),
        )

    def _block(self, route: Route) -> Block | None:
        block_id = route.fired.block if route.fired is not None else None
        return self.opened.project.block(block_id) if block_id is not None else None

    def follow(self) -> None:
        """Go on with the newest snapshot; one that cannot be read leaves the last one in force."""
        try:
            self.opened = follow_newest(self.opened)
        except MeloError as error:
            if str(error) != self._failed:
                _log.error("the project cannot be followed: %s", error)
            self._failed = str(error)
        else:
            self._failed = None


class RoutingThread:
    """Takes prompts to routes without holding up the server: prompts that come meanwhile share one pass.

    Args:
        source: where routes come from.
        threads: threads that torch reads with.
    """

    def __init__(self, source: RouteSource, threads: int) -> None:
        self.source = source
        self._pool = pool_of_one("melo-routes", threads)
        self._waiting: list[tuple[str, asyncio.Future[Routed]]] = []
        self._running: asyncio.Task[None] | None = None

    async def routed(self, text: str | None) -> Routed:
        """The route of a prompt; the base model's if there is no text."""
        if text is None or not text.strip():
            return BASE
        future: asyncio.Future[Routed] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._drain())
        return await future

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in the thread that takes routes."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def stop(self) -> None:
        """Take no more routes."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                found = await self.call(self.source.routed, [text for text, _ in batch])
            except Exception as error:  # noqa: BLE001  the prompts of this pass fail with it, later ones do not
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), routed in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(routed)
