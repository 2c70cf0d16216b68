"""`melo edit`: makes the edits of a recipe, or a single edit, in a project, batch by batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from melo_cli.calibration import Calibration, ReaderFactory, calibration_rows, learnable, reader_here
from melo_cli.datasets import EditRequest
from melo_cli.editing.contradictions import Contradiction
from melo_cli.editing.editor import Editor, EditOutcome
from melo_cli.editing.executor import ExecutorFactory, RunWatch, in_process
from melo_cli.editing.groups import paraphraser_of
from melo_cli.editing.optimizers import check_training_section
from melo_cli.editing.plan import batches, recorded_edits, remaining, requests_of, settings_digest
from melo_cli.editing.project_setup import open_or_create
from melo_cli.editing.resource_check import require_room
from melo_cli.editing.resource_estimate import Needs
from melo_cli.editing.side_effects import SideEffects, side_effects_of
from melo_cli.editing.time_estimate import FEW, Forecast, StepTimer
from melo_cli.errors import DatasetError
from melo_cli.models.base_model import BaseModel
from melo_cli.models.class_labels import with_class_names
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.paraphrase.subject_guess import guessed_subject
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.projects import require_writable
from melo_cli.versions import library_versions
from melo_store.writer import open_writer


@dataclass(frozen=True)
class EditSummary:
    """What one run of `melo edit` did.

    Attributes:
        outcomes: every edit that this run recorded, in order.
        recorded_before: edits of the data set that an earlier run had recorded.
        left: edits that an interruption left to the next run.
        seconds: time in batches, loading left out.
        calibration: what was measured before the first edit, where the recipe leaves the key to that.
        side_effects: what else a single edit answers; None where it did not take.
    """

    project: str
    path: Path
    snapshot: int
    outcomes: list[EditOutcome] = field(default_factory=list)
    recorded_before: int = 0
    left: int = 0
    seconds: float = 0.0
    store_bytes: int = 0
    calibration: Calibration | None = None
    side_effects: SideEffects | None = None

    def count(self, status: str) -> int:
        """How many edits this run recorded with `status`."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failures(self) -> list[EditOutcome]:
        """The edits that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def contradictions(self) -> list[tuple[EditOutcome, Contradiction]]:
        """The edits that ask the same as another one and have another answer, each with that one."""
        return [(each, each.contradicts) for each in self.outcomes if each.contradicts is not None]


def edit_dataset(
    recipe: Recipe,
    path: Path,
    reporter: Reporter,
    *,
    command: str,
    should_stop: Callable[[], bool] = lambda: False,
    force: bool = False,
    executors: ExecutorFactory = in_process,
    readers: ReaderFactory = reader_here,
) -> EditSummary:
    """Make the edits of a recipe's data set that the project at `path` does not have yet.

    The project is created where there is none. Each group of batches is one commit.

    Args:
        recipe: the recipe, not resolved yet.
        path: where the project is, or where it is made.
        reporter: shows progress.
        command: the command line that the history records.
        should_stop: asked before each group; True ends the run after what is committed.
        force: go on where memory or disk do not suffice by the estimate.
        executors: where the groups are trained.
        readers: what reads for calibration, where the project has not been calibrated.

    Returns:
        What was made, what was there before, and what is left.

    Raises:
        MeloError: recipe, data, model or project do not fit; nothing has been changed then.
    """
    requests = requests_of(recipe, reporter)
    require_writable(path)
    needs = require_room(recipe, requests, path, reporter, force=force)
    opened, calibration = open_or_create(recipe, requests, path, reporter, command=command, readers=readers)
    requests = _completed(requests, opened.routed.base)
    recorded = recorded_edits(opened.project.edits(), settings_digest(opened.recipe))
    todo = remaining(requests, recorded)
    before = len(requests) - len(todo)
    if before:
        reporter.info(f"{before} of {len(requests)} edits are in the project already")
    rows = calibration_rows(opened.recipe, reporter) if opened.recipe.training.variants else []
    summary = _run(opened, todo, rows, before, reporter, command, should_stop, needs, executors)
    return replace(summary, calibration=calibration)


def edit_first(
    recipe: Recipe,
    request: EditRequest,
    path: Path,
    reporter: Reporter,
    *,
    command: str,
    force: bool = False,
) -> EditSummary:
    """Make one edit by a recipe, in the project at `path` or in a new one.

    Args:
        recipe: the recipe, not resolved yet.
        request: the edit.
        path: where the project is, or where it is made.
        reporter: shows progress.
        command: the command line that the history records.
        force: go on where memory or disk do not suffice by the estimate.

    Returns:
        The outcome, with the side effects of the edit.

    Raises:
        MeloError: recipe, edit, model or project do not fit; nothing has been changed then.
    """
    check_training_section(recipe.training)
    require_writable(path)
    require_room(recipe, [request], path, reporter, force=force)
    opened, calibration = open_or_create(recipe, [request], path, reporter, command=command)
    return replace(_with_side_effects(opened, request, reporter, command), calibration=calibration)


def edit_single(
    request: EditRequest, path: Path, reporter: Reporter, *, command: str, base: str | None = None
) -> EditSummary:
    """Make one edit in the project at `path`, with its own recipe.

    The data set that the project was made of need not be at hand.

    Args:
        request: the edit.
        path: the project.
        reporter: shows progress.
        command: the command line that the history records.
        base: folder or hub id of the base model, where it is no longer where the project found it.

    Returns:
        The outcome, with the side effects of the edit.

    Raises:
        MeloError: there is no such project, or the edit does not fit the model.
    """
    require_writable(path)
    return _with_side_effects(open_project(path, base=base), request, reporter, command)


def _with_side_effects(
    opened: OpenProject, request: EditRequest, reporter: Reporter, command: str
) -> EditSummary:
    """Make one edit, and see what else it answers where it took."""
    summary = edit_opened(opened, request, reporter, command=command)
    if summary.failures:
        return summary
    (outcome,) = summary.outcomes
    return replace(
        summary,
        side_effects=side_effects_of(opened, _with_subject(request), outcome.edit_id, paraphraser_of(opened)),
    )


def edit_opened(
    opened: OpenProject, request: EditRequest, reporter: Reporter, *, command: str
) -> EditSummary:
    """Make one edit in a project that is open at its newest snapshot; from then on it routes there.

    Args:
        opened: the project; its routed model follows the new snapshot.
        request: the edit.
        reporter: shows progress.
        command: the command line that the history records.

    Returns:
        The outcome.

    Raises:
        MeloError: the edit does not fit the model.
    """
    rows: list[EditRequest] = []
    if opened.recipe.training.variants:
        try:
            rows = calibration_rows(opened.recipe, reporter)
        except DatasetError as error:
            reporter.warn(f"{error}; the edit is trained without the rephrases of dataset.calibration")
    requests = _completed([request], opened.routed.base)
    return _run(opened, requests, rows, 0, reporter, command, lambda: False)


def _completed(requests: Sequence[EditRequest], base: BaseModel) -> list[EditRequest]:
    """Edits with what their data leave open: a classifier's classes by their names, and the subject."""
    return [_with_subject(request) for request in with_class_names(requests, base)]


def _with_subject(request: EditRequest) -> EditRequest:
    """An edit with its subject, guessed if it has none: by it an edit is found and rephrased."""
    return replace(request, subject=request.subject or guessed_subject(request.prompt))


def _run(
    opened: OpenProject,
    todo: Sequence[EditRequest],
    rows: Sequence[EditRequest],
    before: int,
    reporter: Reporter,
    command: str,
    should_stop: Callable[[], bool],
    needs: Needs | None = None,
    executors: ExecutorFactory = in_process,
) -> EditSummary:
    outcomes: list[EditOutcome] = []
    training = opened.recipe.training
    frames = QuestionFrames(learnable(opened.project, rows, todo))
    groups = batches(todo, training.batch_size * training.blocks_in_flight)
    with open_writer(opened.project) as writer, executors(opened, frames, groups) as executor:
        editor = Editor(opened, writer, versions=library_versions(), command=command)
        timer = StepTimer(len(todo), training, needs, _report_long_runs(reporter))
        started = time.monotonic()
        with reporter.progress("editing", len(todo), "edits") as progress:
            watch = RunWatch(progress, timer)
            for number, group in enumerate(groups):
                if should_stop():
                    break
                outcomes += editor.commit(group, executor.train(number, writer.project, watch))
                progress.advance(len(group), solved=_solved_share(outcomes))
        seconds = time.monotonic() - started
    project = writer.project
    return EditSummary(
        project=project.name,
        path=project.path,
        snapshot=project.snapshot,
        outcomes=outcomes,
        recorded_before=before,
        left=len(todo) - len(outcomes),
        seconds=seconds,
        store_bytes=project.size_bytes(),
    )


def _report_long_runs(reporter: Reporter) -> Callable[[Forecast], None]:
    def show_forecast(forecast: Forecast) -> None:
        if forecast.edits >= FEW:
            reporter.info(str(forecast))

    return show_forecast


def _solved_share(outcomes: Sequence[EditOutcome]) -> float:
    statuses = Counter(outcome.status for outcome in outcomes)
    return (len(outcomes) - statuses["failed"]) / len(outcomes)
