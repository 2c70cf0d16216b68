"""One Ray worker: loads the base model once, and works on what it is sent."""

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
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.recipe import Recipe
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.inference import TokenScores
from melo_cli.runtime.loading import OpenProject, assemble, load_base
from melo_cli.scope.core.readings import Reading
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.reading import held_as, reader_for
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
class BaseSpec:
    """The base model of a worker.

    Attributes:
        recipe: resolved; its model and tokenizer lie where the driver found them.
        base: the base model that the driver has loaded.
        threads: threads of torch.
        versions: the driver's libraries.
    """

    recipe: Recipe
    base: BaseReference
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True)
class ProjectSpec:
    """The project of a worker.

    Attributes:
        path: its folder.
        pointer: the newest snapshot as the driver sees it, by which a worker knows the project again.
        snapshot: number of the snapshot to open.
        block_cache_bytes: bytes on the device for blocks that were used lately.
    """

    path: Path
    pointer: Pointer
    snapshot: int
    block_cache_bytes: int


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

    _recipe: Recipe
    _base: BaseModel
    _opened: OpenProject
    _trainer: GroupTrainer

    def __init__(self) -> None:
        self._loss: float | None = None

    @_refusing
    def load(self, spec: BaseSpec) -> None:
        """Load the base model.

        Raises:
            ClusterError: this node has other libraries.
            BaseMismatchError: the base model is another one here.
            ModelError: it cannot be loaded here.
        """
        torch.set_num_threads(spec.threads)
        _require_same_libraries(spec.versions)
        self._recipe = spec.recipe
        self._base = load_base(spec.recipe, spec.recipe.model, None, SilentReporter())
        spec.base.require_same(base_reference(self._base))

    @_refusing
    def open(self, spec: ProjectSpec) -> None:
        """Open the project over the base model.

        Raises:
            ClusterError: this node does not see the project.
        """
        _until(lambda: _has(spec.path, spec.pointer), spec.path)
        project = Project.open(spec.path, at=spec.snapshot)
        self._opened = assemble(project, self._recipe, self._base)
        self._opened.routed.blocks.budget_bytes = spec.block_cache_bytes

    @_refusing
    def take_frames(self, frames: QuestionFrames) -> None:
        """Train with these ways to put prompts from now on."""
        self._trainer = GroupTrainer(self._opened, frames, paraphraser_of(self._opened))

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

    @_refusing
    def answers_of_batch(
        self, prompts: Sequence[Sequence[int]], blocks: Sequence[str | None], max_new_tokens: Sequence[int]
    ) -> list[str]:
        """`Inference.answers_of_batch`."""
        return self._opened.inference.answers_of_batch(prompts, blocks, max_new_tokens)

    @_refusing
    def scores_of_batch(
        self, edits: Sequence[EncodedEdit], blocks: Sequence[str | None]
    ) -> list[TokenScores]:
        """`Inference.scores_of_batch`."""
        return self._opened.inference.scores_of_batch(edits, blocks)

    @_refusing
    def read(self, texts: Sequence[str], dtype: torch.dtype, tuning: Tuning) -> Reading:
        """`Reader.read`, with the base's weights as `dtype`, or those of its sentence encoder tuned."""
        with held_as(self._base, dtype):
            return reader_for(self._base, self._recipe.key.layer).tuned(tuning).read(texts)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def loss(self) -> float | None:
        """The loss of the last training step, nats a token; None before the first."""
        return self._loss

    def _on_step(self, loss: float) -> None:
        self._loss = loss

    def _following(self, snapshot: int) -> GroupTrainer:
        path = self._trainer.project.path
        _until(lambda: read_head(path).newest.number >= snapshot, path)
        if read_head(path).newest.number > self._trainer.project.snapshot:
            self._trainer.follow(Project.open(path))
        return self._trainer


def _require_same_libraries(expected: dict[str, str]) -> None:
    here = library_versions()
    other = [name for name in _DECIDING if here[name] != expected[name]]
    if other:
        differences = ", ".join(f"{name} {here[name]} instead of {expected[name]}" for name in other)
        raise ClusterError(
            f"the node has {differences}",
            hint="install the same versions on every node as where the command is run",
        )


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
