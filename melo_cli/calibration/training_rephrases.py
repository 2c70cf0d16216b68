"""Which rephrases blocks and merged models may learn from: those that no evaluation asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from melo_cli.calibration.run import stored_requests
from melo_cli.calibration.seen_prompts import SeenPrompts
from melo_cli.datasets import EditRequest, load_calibration
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_store.project import Project


def learnable(
    project: Project, rows: Sequence[EditRequest], requests: Sequence[EditRequest] = ()
) -> list[EditRequest]:
    """Edits with the rephrases that calibration has seen, and the rows that it was given beside them.

    Args:
        rows: those of `dataset.calibration` (`calibration_rows`).
        requests: edits that are still to be made, beside those of the project.
    """
    seen = SeenPrompts(project.key_map)
    edits = [*stored_requests(project), *requests]
    return [*(replace(each, rephrases=tuple(filter(seen, each.rephrases))) for each in edits), *rows]


def calibration_rows(recipe: Recipe, reporter: Reporter) -> list[EditRequest]:
    """The rows of `dataset.calibration`; none where the recipe names no such data.

    Raises:
        DatasetError: they cannot be read.
    """
    return load_calibration(recipe.dataset, recipe.task, reporter) if recipe.dataset is not None else []
