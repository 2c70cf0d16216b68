"""The workers of one command: started when the first work comes up, ended with the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melo_cli.distributed.cluster import ClusterOptions, connected, plan_workers
from melo_cli.distributed.pool import WorkerPool
from melo_cli.distributed.worker import BaseSpec, ProjectSpec
from melo_cli.models.base_model import BaseModel
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import OpenProject
from melo_cli.versions import library_versions
from melo_store.format.manifest import read_head
from melo_store.records import BaseReference


class RaySession:
    """Workers with the base model of one command, each of which loads it once.

    Args:
        options: the cluster, to which this process is connected.
        reporter: shows what happens to workers.
    """

    def __init__(self, options: ClusterOptions, reporter: Reporter) -> None:
        self.reporter = reporter
        self._options = options
        self._pool: WorkerPool | None = None
        self._has_project = False

    def with_base(self, recipe: Recipe, base: BaseModel) -> WorkerPool:
        """Workers that have loaded a base model, as this process has.

        Raises:
            ClusterError: the cluster, or a node of it, does not fit.
        """
        if self._pool is None:
            plan = plan_workers(self._options, recipe.model.device)
            self.reporter.info(f"starting {plan} on Ray")
            self._pool = WorkerPool(plan, self.reporter)
            reference = base_reference(base)
            found = _for_workers(recipe, reference, plan.device)
            self._pool.prepare("load", BaseSpec(found, reference, plan.threads, library_versions()))
        return self._pool

    def with_project(self, opened: OpenProject) -> WorkerPool:
        """Workers that have opened a project, too.

        Raises:
            ClusterError: the cluster, or a node of it, does not fit.
        """
        pool = self.with_base(opened.recipe, opened.routed.base)
        if not self._has_project:
            path = opened.project.path.absolute()
            cache = opened.routed.blocks.budget_bytes
            pool.prepare("open", ProjectSpec(path, read_head(path).newest, opened.project.snapshot, cache))
            self._has_project = True
        return pool

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()


@contextmanager
def ray_session(options: ClusterOptions, reporter: Reporter) -> Iterator[RaySession]:
    """Within it workers are there for one command.

    Raises:
        ClusterError: there is no such cluster.
    """
    with connected(options):
        session = RaySession(options, reporter)
        try:
            yield session
        finally:
            session.close()


def _for_workers(recipe: Recipe, base: BaseReference, device: str) -> Recipe:
    """The recipe with a worker's device, and with full paths, since workers have other current folders."""
    encoder = recipe.key.encoder
    if encoder is not None and Path(encoder).expanduser().is_dir():
        encoder = str(Path(encoder).expanduser().absolute())
    return recipe.model_copy(
        update={
            "model": recipe.model.at(base.name_or_path, revision=base.revision, device=device),
            "key": recipe.key.model_copy(update={"encoder": encoder}),
        }
    )
