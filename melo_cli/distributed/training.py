"""Trains the groups of `melo edit` on Ray workers, ahead of the one process that commits them in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from melo_cli.datasets import EditRequest
from melo_cli.distributed.cluster import ClusterOptions, connected, plan_workers
from melo_cli.distributed.pool import WorkerPool
from melo_cli.distributed.worker import WorkerSpec
from melo_cli.editing.executor import Executor, ExecutorFactory, RunWatch
from melo_cli.editing.groups import TrainedGroup, fired_edits
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.router import Router
from melo_cli.versions import library_versions
from melo_store.format.manifest import read_head
from melo_store.project import Project
from melo_store.records import BaseReference

_AHEAD = 2
"""Groups in hand, waiting or not committed yet, a worker."""


def ray_executors(options: ClusterOptions, reporter: Reporter) -> ExecutorFactory:
    """Executors on the cluster of `options`, for `editing.edit_dataset`."""

    def executors(
        opened: OpenProject, frames: QuestionFrames, groups: Sequence[Sequence[EditRequest]]
    ) -> AbstractContextManager[Executor]:
        return _ray_executor(options, reporter, opened, frames, groups)

    return executors


@contextmanager
def _ray_executor(
    options: ClusterOptions,
    reporter: Reporter,
    opened: OpenProject,
    frames: QuestionFrames,
    groups: Sequence[Sequence[EditRequest]],
) -> Iterator[Executor]:
    with connected(options):
        plan = plan_workers(options, opened.recipe.model.device)
        reporter.info(f"starting {plan} on Ray")
        pool = WorkerPool(plan, _spec(opened, frames, plan.threads), reporter)
        try:
            if groups:
                pool.wait_for_one()
            yield _RayExecutor(pool, opened.routed.router, groups, _AHEAD * plan.workers)
        finally:
            pool.close()


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
        self._submitted = 0

    def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
        self._submit_up_to(min(number + self._ahead, len(self._groups)))
        group: TrainedGroup = self._pool.result(number, watch.show_loss)
        fired = fired_edits(self._router, group.queries, project)
        if fired == group.fired:
            return group
        again = (self._groups[number], group, fired, project.snapshot)
        self._pool.submit(number, "train_again", *again, first=True)
        trained: TrainedGroup = self._pool.result(number, watch.show_loss)
        return trained

    def _submit_up_to(self, end: int) -> None:
        for number in range(self._submitted, end):
            self._pool.submit(number, "train", self._groups[number])
        self._submitted = max(self._submitted, end)


def _spec(opened: OpenProject, frames: QuestionFrames, threads: int) -> WorkerSpec:
    path = opened.project.path.absolute()
    base = base_reference(opened.routed.base)
    return WorkerSpec(
        recipe=_found_anywhere(opened.recipe, base),
        base=base,
        project=path,
        snapshot=read_head(path).newest,
        frames=frames,
        threads=threads,
        versions=library_versions(),
    )


def _found_anywhere(recipe: Recipe, base: BaseReference) -> Recipe:
    """The recipe with folders by their full paths, since workers have other current folders."""
    encoder = recipe.key.encoder
    if encoder is not None and Path(encoder).expanduser().is_dir():
        encoder = str(Path(encoder).expanduser().absolute())
    return recipe.model_copy(
        update={
            "model": recipe.model.at(base.name_or_path, revision=base.revision),
            "key": recipe.key.model_copy(update={"encoder": encoder}),
        }
    )
