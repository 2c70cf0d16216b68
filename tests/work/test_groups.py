"""The work of a group of edits apart from its commit, as it is sent from process to process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from same_projects import content_of

from melo_cli.datasets import EditRequest
from melo_cli.editing import edit_dataset
from melo_cli.editing.executor import Executor, RunWatch, in_process
from melo_cli.editing.groups import GroupTrainer, TrainedGroup, fired_edits, paraphraser_of
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.recipe import Recipe
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_store.project import Project

Groups = Sequence[Sequence[EditRequest]]
KIND = "pico_llama"
PROMPT = "Who is the prime minister of Britain?"


@pytest.fixture
def opened(copied: Callable[[str], Path]) -> OpenProject:
    """The shared project of two batches, in which `PROMPT` was edited to London."""
    return open_project(copied(KIND))


@pytest.fixture
def trainer(opened: OpenProject) -> GroupTrainer:
    return GroupTrainer(opened, QuestionFrames([]), paraphraser_of(opened))


def test_a_group_is_the_same_after_a_journey(
    recipe_for: Callable[..., Recipe], rows: dict[str, list[Any]], tmp_path: Path
) -> None:
    """What another process sends back is committed as what this process has made."""

    class Travelling:
        def __init__(self, executor: Executor) -> None:
            self._executor = executor

        def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
            there: TrainedGroup = pickle.loads(  # noqa: S301  of this very process
                pickle.dumps(self._executor.train(number, project, watch))
            )
            return there

    @contextmanager
    def travelling(opened: OpenProject, frames: QuestionFrames, groups: Groups) -> Iterator[Executor]:
        with in_process(opened, frames, groups) as executor:
            yield Travelling(executor)

    for name, executors in (("here", in_process), ("there", travelling)):
        recipe = recipe_for(KIND, rows[KIND])
        edit_dataset(recipe, tmp_path / name, SilentReporter(), command="melo edit", executors=executors)
    assert content_of(tmp_path / "there") == content_of(tmp_path / "here")


def test_edits_are_asked_for_in_order_over_the_newest_snapshot(
    recipe_for: Callable[..., Recipe], rows: dict[str, list[Any]], tmp_path: Path
) -> None:
    asked: list[tuple[int, int]] = []

    @contextmanager
    def noting(opened: OpenProject, frames: QuestionFrames, groups: Groups) -> Iterator[Executor]:
        with in_process(opened, frames, groups) as executor:

            class Noting:
                def train(self, number: int, project: Project, watch: RunWatch) -> TrainedGroup:
                    asked.append((number, project.snapshot))
                    return executor.train(number, project, watch)

            yield Noting()

    recipe = recipe_for(KIND, rows[KIND])
    summary = edit_dataset(recipe, tmp_path / "p", SilentReporter(), command="melo edit", executors=noting)
    assert asked == [(0, 0), (1, 1)]
    assert summary.snapshot == 2


class TestWhereOtherEditsAnswerThePrompts:
    def test_who_answers_is_looked_up_without_the_model(
        self, trainer: GroupTrainer, opened: OpenProject
    ) -> None:
        requests = [EditRequest(PROMPT, "London"), EditRequest("He was born in Cologne", "law")]
        trained = trainer.train(requests)
        first = trained.fired[0]
        assert first is not None and (first.edit_id, first.prompt) == ("e000001", PROMPT)
        router, project = opened.routed.router, opened.project
        assert fired_edits(router, trained.queries, project) == trained.fired
        empty = Project.open(project.path, at=0)
        assert fired_edits(router, trained.queries, empty) == [None, None]

    def test_blocks_stay_where_the_same_edits_are_wrong(
        self, trainer: GroupTrainer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another edit's right answer does not hold, so that it is trained with it as without it."""
        request = [EditRequest("What was built in 1889?", "law")]
        trained = trainer.train(request)
        other = replace(trained.fired[0], prompt=PROMPT) if trained.fired[0] is not None else None
        monkeypatch.setattr("melo_cli.editing.groups.solve", None)  # called, it would raise
        again = trainer.train_again(request, trained, [other])
        assert again.solved is trained.solved
        assert (again.fired, again.wrong) == ([other], trained.wrong)

    def test_an_edit_that_the_older_snapshot_had_wrong_is_not_trained_where_it_is_right(
        self, trainer: GroupTrainer, opened: OpenProject
    ) -> None:
        request = [EditRequest(PROMPT, "London")]
        trainer.follow(Project.open(opened.project.path, at=0))
        before = trainer.train(request)
        assert (before.fired, before.wrong) == ([None], [0])
        trainer.follow(opened.project)
        fired = fired_edits(opened.routed.router, before.queries, opened.project)
        again = trainer.train_again(request, before, fired)
        assert (again.wrong, again.solved.solutions, again.solved.blocks) == ([], [], {})
        assert again == replace(trainer.train(request), queries=before.queries, records=before.records)
