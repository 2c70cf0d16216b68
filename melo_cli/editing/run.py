"""`melo edit`: a recipe or a single edit onto a project, batch by batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from melo_cli.base_model import load_base_model
from melo_cli.datasets import EditRequest, load_edits
from melo_cli.editing.editor import Editor, EditOutcome
from melo_cli.editing.optimizers import check_training_section
from melo_cli.editing.plan import batches, remaining
from melo_cli.errors import RecipeError
from melo_cli.loading import OpenProject, assemble, encoder_for, open_project, resolve_recipe
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.reporter import Progress, Reporter
from melo_cli.versions import library_versions
from store.project import Project

# What a project's neurons and blocks rest on: a project has one of each for good.
_FIXED = ("task", "model.template", "key.layer", "key.pooling", "lora.target_modules")


@dataclass(frozen=True)
class EditSummary:
    """What one run of `melo edit` did.

    Attributes:
        outcomes: every edit that this run recorded, in order.
        recorded_before: edits of the data set that an earlier run had recorded.
        left: edits that an interruption left to the next run.
        seconds: time in batches, loading left out.
    """

    project: str
    path: Path
    snapshot: int
    outcomes: list[EditOutcome] = field(default_factory=list)
    recorded_before: int = 0
    left: int = 0
    seconds: float = 0.0
    store_bytes: int = 0

    def count(self, status: str) -> int:
        """How many edits this run recorded with `status`."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failures(self) -> list[EditOutcome]:
        """The edits that did not take."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]


def edit_dataset(
    recipe: Recipe,
    path: Path,
    reporter: Reporter,
    *,
    command: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> EditSummary:
    """Make the edits of a recipe's data set that the project at `path` does not have yet.

    The project is created where there is none. Each batch is one commit; `should_stop` is asked before each.

    Raises:
        MeloError: recipe, data, model or project do not fit; nothing has been changed then.
    """
    if recipe.dataset is None:
        raise RecipeError("the recipe has no data set", where=recipe.name, mend="add dataset.edits")
    check_training_section(recipe.training)
    requests = load_edits(recipe.dataset, recipe.task, reporter)
    opened = _open_or_create(recipe, requests, path, reporter)
    recorded = [(edit.prompt, edit.target) for edit in opened.project.edits() if edit.status != "reverted"]
    todo = remaining(requests, recorded)
    before = len(requests) - len(todo)
    if before:
        reporter.info(f"{before} of {len(requests)} edits are in the project already")
    return _run(opened, todo, before, reporter, command, should_stop)


def edit_single(
    request: EditRequest, path: Path, reporter: Reporter, *, command: str, base: str | None = None
) -> EditSummary:
    """Make one edit in the project at `path`, with its own recipe.

    Raises:
        MeloError: there is no such project, or the edit does not fit the model.
    """
    return _run(open_project(path, base=base), [request], 0, reporter, command, lambda: False)


def _open_or_create(
    recipe: Recipe, requests: Sequence[EditRequest], path: Path, reporter: Reporter
) -> OpenProject:
    exists = Project.exists(path)
    reporter.info(f"loading {recipe.model.name_or_path}")
    base = load_base_model(recipe.model, recipe.task)
    resolved = resolve_recipe(recipe, base)
    encoder = encoder_for(resolved, base)
    for request in requests:
        encoder.edit(request.prompt, request.target)
    if exists:
        project = Project.open(path)
        project.base.require_same(base.reference)
        _require_same_settings(resolved, recipe_from_mapping(project.recipe, where=f"{path}: recipe"), path)
    else:
        project = Project.create(
            path,
            name=recipe.name,
            base=base.reference,
            recipe=resolved.to_mapping(),
            seed=recipe.seed,
            versions=library_versions(),
        )
    return assemble(project, resolved, base)


def _require_same_settings(recipe: Recipe, kept: Recipe, path: Path) -> None:
    for dotted in _FIXED:
        section, _, name = dotted.rpartition(".")
        ours = getattr(getattr(recipe, section) if section else recipe, name)
        theirs = getattr(getattr(kept, section) if section else kept, name)
        if ours != theirs:
            raise RecipeError(
                f"{dotted} is {ours!r}, but the project's edits were made with {theirs!r}",
                where=str(path),
                mend="keep it, or start another project with --project",
            )


def _run(
    opened: OpenProject,
    todo: Sequence[EditRequest],
    before: int,
    reporter: Reporter,
    command: str,
    should_stop: Callable[[], bool],
) -> EditSummary:
    outcomes: list[EditOutcome] = []
    with opened.project.writer() as writer:
        editor = Editor(opened, writer, versions=library_versions(), command=command)
        started = time.monotonic()
        with reporter.progress("editing", len(todo), "edits") as progress:
            for batch in batches(todo, opened.recipe.training.batch_size):
                if should_stop():
                    break
                outcomes += editor.edit(batch, on_step=_show_loss(progress))
                progress.advance(len(batch), solved=_solved_share(outcomes))
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


def _show_loss(progress: Progress) -> Callable[[float], None]:
    return lambda loss: progress.advance(0, loss=loss)


def _solved_share(outcomes: Sequence[EditOutcome]) -> float:
    statuses = Counter(outcome.status for outcome in outcomes)
    return (len(outcomes) - statuses["failed"]) / len(outcomes)
