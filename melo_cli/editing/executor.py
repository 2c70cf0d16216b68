"""Where groups of edits are trained: in this process, or by what another package brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeAlias

from melo_cli.datasets import EditRequest
from melo_cli.editing.groups import GroupTrainer, TrainedGroup, paraphraser_of
from melo_cli.editing.time_estimate import StepTimer
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject
from melo_store.project import Project


class RunWatch:
    """Shows how the training of a run goes on.

    Args:
        progress: the run's progress bar.
        timer: makes a forecast of the steps that this process takes.
    """

    def __init__(self, progress: Progress, timer: StepTimer) -> None:
        self._progress = progress
        self._timer = timer

    def start_group(self) -> None:
        """This process begins a group."""
        self._timer.start_group()

    def on_step(self, loss: float) -> None:
        """This process has made a training step; the loss is in nats a token."""
        self.show_loss(loss)
        self._timer.on_step()

    def show_loss(self, loss: float) -> None:
        """Somewhere a training step had this loss, nats a token."""
        self._progress.advance(0, loss=loss)


class Executor(Protocol):
    """Trains the groups of a run, for one caller that commits them in order."""

    def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
        """Group `number`, as it is to be committed next.

        Args:
            number: of the run's groups; they are asked for in order.
            project: the newest snapshot. The result is that of a training over it, wherever it was made.
            watch: hears of the steps.

        Raises:
            MeloError: the model cannot take one of its edits, or the group cannot be trained.
        """


ExecutorFactory: TypeAlias = Callable[
    [OpenProject, QuestionFrames, Sequence[Sequence[EditRequest]]], AbstractContextManager[Executor]
]
"""Takes the project, ways to put prompts, and all groups of the run; within the context it trains them."""


@contextmanager
def in_process(
    opened: OpenProject, frames: QuestionFrames, groups: Sequence[Sequence[EditRequest]]
) -> Iterator[Executor]:
    """Trains each group in this process, when it is asked for."""
    yield _InProcess(GroupTrainer(opened, frames, paraphraser_of(opened)), groups)


class _InProcess:
    def __init__(self, trainer: GroupTrainer, groups: Sequence[Sequence[EditRequest]]) -> None:
        self._trainer = trainer
        self._groups = groups

    def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
        self._trainer.follow(project)
        watch.start_group()
        return self._trainer.train(self._groups[number], watch.on_step)
