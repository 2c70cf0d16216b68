"""Trains the groups of `melo edit` on Ray workers, ahead of the one process that commits them in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from melo_cli.datasets import EditRequest
from melo_cli.distributed.pool import WorkerPool
from melo_cli.distributed.session import RaySession
from melo_cli.editing.executor import Executor, ExecutorFactory, RunWatch
from melo_cli.editing.groups import TrainedGroup, fired_edits
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.router import Router
from melo_store.project import Project

_AHEAD = 2
"""Groups a worker that are in hand, waiting or not committed yet."""


def ray_executors(session: RaySession) -> ExecutorFactory:
    """Executors on the workers of a session, for `editing.edit_dataset`."""

    def executors(
        opened: OpenProject, frames: QuestionFrames, groups: Sequence[Sequence[EditRequest]]
    ) -> AbstractContextManager[Executor]:
        return _ray_executor(session, opened, frames, groups)

    return executors


@contextmanager
def _ray_executor(
    session: RaySession,
    opened: OpenProject,
    frames: QuestionFrames,
    groups: Sequence[Sequence[EditRequest]],
) -> Iterator[Executor]:
    pool = session.with_project(opened)
    pool.prepare("take_frames", frames)
    yield _RayExecutor(pool, opened.routed.router, groups, _AHEAD * pool.plan.workers)


class _RayExecutor:
    """Groups are trained over the snapshot that a worker sees, which may be older than the newest.

    What a group's training needs of the project are the edits that answer its prompts. So these are looked
    up again over the newest snapshot, and a group for which they are others is trained with them.

    Args:
        router: of the project; it holds the scope rule.
        groups: of the run.
        ahead: how many groups workers may be ahead of the commits.
    """

    def __init__(
        self, pool: WorkerPool, router: Router, groups: Sequence[Sequence[EditRequest]], ahead: int
    ) -> None:
        self._pool = pool
        self._router = router
        self._groups = groups
        self._ahead = ahead
        self._tickets: list[int] = []

    def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
        for group in self._groups[len(self._tickets) : number + self._ahead]:
            self._tickets.append(self._pool.submit("train", group))
        trained: TrainedGroup = self._pool.result(self._tickets[number], watch.show_loss)
        fired = fired_edits(self._router, trained.queries, project)
        if fired == trained.fired:
            return trained
        again = (self._groups[number], trained, fired, project.snapshot)
        ticket = self._pool.submit("train_again", *again, first=True)
        renewed: TrainedGroup = self._pool.result(ticket, watch.show_loss)
        return renewed
