"""What a server is made of: an engine, routes, edits, limits and counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from melo_cli.scope.core.rules import Route
from melo_cli.serving.access import Access
from melo_cli.serving.engines.engine import Engine, Routed
from melo_cli.serving.errors import ApiError
from melo_cli.serving.metrics import Metrics
from melo_cli.serving.project_editor import ProjectEditor
from melo_cli.serving.routing import RouteSource, RoutingThread
from melo_cli.serving.settings import Keys, Limits

BASE = "base"


@dataclass
class Server:
    """The parts of a running server.

    Attributes:
        routes: where routes come from.
        editor: makes edits; None where they cannot be made.
        route_threads: threads that torch reads prompts with.
        shows_route: whether answers carry the header `x-melo-route`.
    """

    engine: Engine
    routes: RouteSource
    editor: ProjectEditor | None
    route_threads: int
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    shows_route: bool = True
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: int = 0

    def __post_init__(self) -> None:
        self.access = Access(self.keys)
        self.routing = RoutingThread(self.routes, self.route_threads)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, requests are answered; on leaving, what is in hand is finished."""
        await self.engine.start()
        follower = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            follower.cancel()
            await self.engine.stop()
            if self.editor is not None:
                await asyncio.to_thread(self.editor.stop)
            await asyncio.to_thread(self.routing.stop)

    async def routed(self, text: str | None) -> Routed:
        """The route of a prompt's text; the base model's if there is none."""
        started = time.perf_counter()
        routed = await self.routing.routed(text)
        self.metrics.route_seconds.observe(time.perf_counter() - started)
        self.metrics.prompts.labels("base" if routed.block is None else "edit").inc()
        return routed

    @contextmanager
    def admitted(self, path: str) -> Iterator[None]:
        """Count a request that takes time, if there is room for it.

        Raises:
            ApiError: too many are being answered.
        """
        if self.in_flight >= self.limits.queue:
            raise ApiError(429, "too many requests at once; try again later", headers={"Retry-After": "1"})
        self.in_flight += 1
        self.metrics.in_flight.inc()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.dec()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - started)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Give up what takes too long.

        Raises:
            ApiError: it has taken longer than a request may.
        """
        try:
            async with asyncio.timeout(self.limits.timeout):
                yield
        except TimeoutError as error:
            raise ApiError(504, f"the answer took more than {self.limits.timeout:g} s") from error

    async def _follow(self) -> None:
        """Show a commit of another process even while nobody asks."""
        while True:
            await self.routing.call(self.routes.follow)
            self.metrics.snapshot.set(int(self.routes.source["snapshot"]))
            await asyncio.sleep(0.5)


def route_name(route: Route) -> str:
    """The edit whose answer is given, the edits that the base model is told, or `base`."""
    if route.told:
        return f"told {' '.join(route.told)}"
    return route.fired.edit_id if route.fired is not None and route.fired.block is not None else BASE
