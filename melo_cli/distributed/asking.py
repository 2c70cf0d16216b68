"""Asks the probes of `melo eval` on Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from melo_cli.distributed.reading import RayReader
from melo_cli.distributed.session import RaySession
from melo_cli.runtime.inference import Advance, Inference, Result
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.router import Router, VerifiedRecorder
from melo_cli.scope.core.rules import Route


class RayInference(Inference):
    """Asks in the batches of one process, each of them on a worker: the results are the same, bit for bit.

    Under the rule `radius` routes are looked up in this process.

    Args:
        session: its workers.
        opened: the project.
    """

    def __init__(self, session: RaySession, opened: OpenProject) -> None:
        super().__init__(opened.routed, opened.encoder)
        self._pool = session.with_project(opened)
        router = opened.routed.router
        self._router = router
        if isinstance(router.recorder, VerifiedRecorder):
            reader = RayReader(session, opened.recipe, opened.routed.base)
            self._router = Router(router.recorder.read_by(reader), router.rule, router.neurons)

    def routes(self, prompts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        return self._router.routes(prompts, advance) if prompts else []

    def _each(
        self, work: Callable[..., list[Result]], calls: Iterable[Sequence[Any]]
    ) -> Iterable[list[Result]]:
        """Each call is one of the worker's method of the same name."""
        return self._pool.map(work.__name__, calls)
