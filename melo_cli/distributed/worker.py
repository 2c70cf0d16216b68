"""One Ray worker: loads the base model once, and trains what it is sent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import ray
import torch

from melo_cli.datasets import EditRequest
from melo_cli.editing.groups import FiredEdit, GroupTrainer, TrainedGroup, paraphraser_of
from melo_cli.errors import ClusterError, MeloError
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.recipe import Recipe
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import OpenProject, assemble, load_base
from melo_cli.versions import library_versions
from melo_store.errors import ProjectNotFoundError
from melo_store.format.documents import Pointer
from melo_store.format.manifest import read_head
from melo_store.project import Project
from melo_store.records import BaseReference

_DECIDING = ("melo-cli", "torch", "transformers", "peft", "numpy")
"""Libraries by whose versions results may differ."""
_SHARED_FOLDER_SECONDS = 60.0
"""How long a shared folder may take to show on one node what another has written."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker works on.

    Attributes:
        recipe: resolved; its model and tokenizer lie where the driver found them.
        base: the base model that the driver has loaded.
        project: folder of the project.
        snapshot: the newest one when the run began, by which a worker knows the project again.
        frames: ways to put prompts, for training.
        threads: threads of torch.
        versions: the driver's libraries.
    """

    recipe: Recipe
    base: BaseReference
    project: Path
    snapshot: Pointer
    frames: QuestionFrames
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Refusal:
    """An error of melo's own, on its way to the driver."""

    what: str
    where: str | None
    hint: str | None

    def error(self) -> ClusterError:
        """The error, to be raised."""
        return ClusterError(self.what, where=self.where, hint=self.hint)


def _refusing(work: Callable[..., Any]) -> Callable[..., Any]:
    """An error that the user can mend is an answer, so that Ray does not wrap it."""

    @wraps(work)
    def answering(*args: Any) -> Any:
        try:
            return work(*args)
        except MeloError as error:
            where = f"Ray worker on {ray.util.get_node_ip_address()}"
            return Refusal(error.what, f"{where}: {error.where}" if error.where else where, error.hint)

    return answering


class Worker:
    """The actor's class. Each method gives its result, or a `Refusal`."""

    def __init__(self) -> None:
        self._trainer: GroupTrainer | None = None
        self._loss: float | None = None

    @_refusing
    def open(self, spec: WorkerSpec) -> None:
        """Load the base model, and open the project over it.

        Raises:
            ClusterError: this node has other libraries, or does not see the project.
            BaseMismatchError: the base model is another one here.
            ModelError: it cannot be loaded here.
        """
        torch.set_num_threads(spec.threads)
        _require_same_libraries(spec.versions)
        project = _visible(spec.project, spec.snapshot)
        self._trainer = _trainer(_open(spec, project), spec.frames)

    @_refusing
    def train(self, requests: Sequence[EditRequest]) -> TrainedGroup:
        """Train one group over the newest snapshot that this node sees."""
        return self._following(0).train(requests, self._on_step)

    @_refusing
    def train_again(
        self,
        requests: Sequence[EditRequest],
        group: TrainedGroup,
        fired: Sequence[FiredEdit | None],
        snapshot: int,
    ) -> TrainedGroup:
        """The group where other edits answer its prompts, over the snapshot of this number or a newer one."""
        return self._following(snapshot).train_again(requests, group, fired, self._on_step)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def loss(self) -> float | None:
        """The loss of the last training step, nats a token; None before the first."""
        return self._loss

    def _on_step(self, loss: float) -> None:
        self._loss = loss

    def _following(self, snapshot: int) -> GroupTrainer:
        assert self._trainer is not None  # the pool gives work to open workers alone
        path = self._trainer.project.path
        _until(lambda: read_head(path).newest.number >= snapshot, path)
        if read_head(path).newest.number > self._trainer.project.snapshot:
            self._trainer.follow(Project.open(path))
        return self._trainer


def _trainer(opened: OpenProject, frames: QuestionFrames) -> GroupTrainer:
    return GroupTrainer(opened, frames, paraphraser_of(opened))


def _open(spec: WorkerSpec, project: Project) -> OpenProject:
    base = load_base(spec.recipe, spec.recipe.model, None, SilentReporter())
    spec.base.require_same(base_reference(base))
    return assemble(project, spec.recipe, base)


def _require_same_libraries(expected: dict[str, str]) -> None:
    here = library_versions()
    other = [name for name in _DECIDING if here[name] != expected[name]]
    if other:
        differences = ", ".join(f"{name} {here[name]} instead of {expected[name]}" for name in other)
        raise ClusterError(
            f"the node has {differences}",
            hint="install the same versions on every node as where the command is run",
        )


def _visible(path: Path, snapshot: Pointer) -> Project:
    """The project, once this node sees the snapshot with which the run began."""
    _until(lambda: _has(path, snapshot), path)
    return Project.open(path)


def _has(path: Path, snapshot: Pointer) -> bool:
    try:
        content = (path / snapshot.path).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content).hexdigest() == snapshot.sha256


def _until(seen: Callable[[], bool], path: Path) -> None:
    last = time.monotonic() + _SHARED_FOLDER_SECONDS
    while not _without_error(seen):
        if time.monotonic() > last:
            raise ClusterError(
                "the node does not see the project, or not its newest snapshot",
                where=str(path),
                hint="put the project in a folder that all nodes share, with --project",
            )
        time.sleep(0.5)


def _without_error(seen: Callable[[], bool]) -> bool:
    try:
        return seen()
    except ProjectNotFoundError:
        return False


def worker_class() -> Any:
    """The class as Ray starts it, with a thread beside the work that tells how it goes on."""
    return ray.remote(concurrency_groups={"watch": 1})(Worker)
