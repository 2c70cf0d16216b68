"""The edits of a data set that are still to be made, and their batches."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from melo_cli.datasets import EditRequest, load_edits
from melo_cli.editing.optimizers import check_training_section
from melo_cli.errors import RecipeError
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_store.records import EditView


def requests_of(recipe: Recipe, reporter: Reporter) -> list[EditRequest]:
    """The edits of a recipe's data set, of a recipe that can train them.

    Raises:
        MeloError: it names no data set, the data cannot be read, or its training section does not fit.
    """
    if recipe.dataset is None:
        raise RecipeError("the recipe has no data set", where=recipe.name, hint="add dataset.edits")
    check_training_section(recipe.training)
    return load_edits(recipe.dataset, recipe.task, reporter)


def settings_digest(recipe: Recipe) -> str:
    """Checksum of all settings that decide whether an edit succeeds; with the same checksum the result is the
    same."""
    mapping = recipe.to_mapping()
    parts = json.dumps([mapping[name] for name in ("lora", "training", "seed")], sort_keys=True)
    return hashlib.sha256(parts.encode("utf-8")).hexdigest()[:16]


def recorded_edits(edits: Iterable[EditView], settings: str) -> list[tuple[str, str]]:
    """The edits that need not be made again: all but reverted ones and those that failed with other settings.

    Args:
        edits: the edits of a project.
        settings: the result of `settings_digest` for the present recipe.

    Returns:
        `(prompt, target)` of each.
    """
    return [
        (edit.prompt, edit.target)
        for edit in edits
        if edit.status != "reverted"
        and not (edit.status == "failed" and edit.record.metrics.get("settings") != settings)
    ]


def remaining(requests: Sequence[EditRequest], recorded: Iterable[tuple[str, str]]) -> list[EditRequest]:
    """The requests that the project has no record of, in order.

    A request is identified by its prompt and target; one that the data hold twice is made twice, so that a
    prompt corrected to A, to B and to A again ends at A.

    Args:
        recorded: as `recorded_edits` gives them.
    """
    done = Counter(recorded)
    left = []
    for request in requests:
        if done[(request.prompt, request.target)]:
            done[(request.prompt, request.target)] -= 1
        else:
            left.append(request)
    return left


def batches(requests: Sequence[EditRequest], size: int) -> list[list[EditRequest]]:
    """The requests in batches; a prompt comes up once a batch.

    A prompt asked for again starts a new batch: the newer edit supersedes what is already stored.

    Args:
        requests: the edits, in order.
        size: edits of a batch at most.

    Returns:
        The batches, in order.
    """
    batches: list[list[EditRequest]] = []
    prompts: set[str] = set()
    for request in requests:
        if not batches or len(batches[-1]) == size or request.prompt in prompts:
            batches.append([])
            prompts = set()
        batches[-1].append(request)
        prompts.add(request.prompt)
    return batches
