"""Calibrates a project and puts the result in force: key map, recipe, and new records of the edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from melo_cli.calibration.calibration_data import CalibrationData, collect_calibration_data
from melo_cli.calibration.project_examples import Adapted, adapted, other_questions, texts_of, what_they_ask
from melo_cli.calibration.scope_cache import learnt_by_others, scope_learnt_with
from melo_cli.calibration.seen_prompts import digests
from melo_cli.calibration.thresholds import Evidence, shares, threshold_within
from melo_cli.datasets import EditRequest, load_calibration, load_locality
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.paraphrase.subject_guess import guessed_subject
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import TextReader
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import probability
from melo_cli.scope.reading import reader_for
from melo_cli.scope.simulation import Outcome, Readings
from melo_cli.scope.training import Learnt
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.writer import Writer


@dataclass(frozen=True)
class OtherReader:
    """The figures of another reader of the same base model, from the cache.

    Attributes:
        encoder: hub id or folder of a sentence encoder; None for the base model itself.
        corpus: as in `Calibration`, at a threshold with the same limits.
    """

    encoder: str | None
    corpus: dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """The scope model of a project, and its expected figures.

    Attributes:
        model: the scope model.
        threshold: log-odds from which on an edit fires; infinite if an edit answers its own prompt alone.
        corpus: by kind of query, the share that reaches its edit or fires wrongly, on the corpus.
        own: the same on the project's own data.
        counts: number of queries of each kind in the project's own data.
        adapted: whether the classifier was trained on the project's own data.
        calibration_data: the project's data.
        encoder: fingerprint of the sentence encoder, if one is used.
        kinds: vectors of the kinds of questions, see `Learnt`.
        others: other readers that the project could use.
        questions: whether prompts are questions, see `Verified.questions`.
    """

    model: ScopeModel
    threshold: float
    corpus: dict[str, float]
    own: dict[str, float]
    counts: dict[str, int]
    adapted: bool
    calibration_data: CalibrationData
    encoder: dict[str, str] | None
    kinds: Mapping[str, Tensor]
    others: Sequence[OtherReader]
    questions: bool

    @property
    def strictest(self) -> bool:
        """Whether an edit answers its own prompt alone, since no threshold keeps the limits."""
        return math.isinf(self.threshold)

    def report(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "threshold": None if self.strictest else probability(self.threshold),
            "corpus": self.corpus,
            "own": self.own,
            "counts": self.counts,
            "moved": self.adapted,
            "tuned": bool(self.model.tuning.parts),
            "edits": len(self.calibration_data.calibration_edits),
            "unrelated": len(self.calibration_data.unrelated),
        }

    def key_map(self, seed: int) -> KeyMap:
        """The key map for the project."""
        settings, arrays = self.model.to_arrays()
        return KeyMap(
            {
                "scope": "verified",
                "threshold": None if self.strictest else self.threshold,
                "questions": self.questions,
                "model": settings,
                "encoder": dict(self.encoder) if self.encoder is not None else None,
                "kinds": list(self.kinds),
                "learnt": self.report(),
                "seed": seed,
                "seen": list(digests(self.calibration_data.prompts())),
            },
            {name: array.numpy() for name, array in arrays.items()}
            | {"kinds": np.stack([vector.numpy() for vector in self.kinds.values()])},
        )


ReaderFactory: TypeAlias = Callable[[Recipe, BaseModel], TextReader]
"""Takes a resolved recipe and its base model to what reads texts with it."""


def reader_here(recipe: Recipe, base: BaseModel) -> TextReader:
    """Reads in this process."""
    return reader_for(base, recipe.key.layer)


def calibrate(
    recipe: Recipe,
    base: BaseModel,
    edits: Sequence[EditRequest],
    reporter: Reporter,
    readers: ReaderFactory = reader_here,
) -> Calibration:
    """Learn the scope of a project's edits from the corpus and from the recipe's data.

    Args:
        recipe: a resolved recipe with the scope rule `verified`.
        base: the base model.
        edits: the edits that are or will be in the project.
        reporter: shows progress.
        readers: what reads the corpus and the data.

    Raises:
        MeloError: the recipe's data cannot be read.
    """
    reader = readers(recipe, base)
    learnt = scope_learnt_with(base, recipe.key.layer, recipe.calibration.questions, reporter, reader)
    calibration_data = _calibration_data(recipe, edits, reporter)
    after = _adapted(learnt, calibration_data, recipe, reader.tuned(learnt.model.tuning), reporter)
    bounds = recipe.routing.max_false_fire.model_dump()
    threshold = threshold_within(Evidence(after.corpus, after.outcomes), bounds)
    if math.isinf(threshold):
        reporter.warn(
            "no threshold keeps false fires within routing.max_false_fire, so each edit answers its own "
            "prompt alone"
        )
    return Calibration(
        after.model,
        threshold,
        shares(after.corpus, threshold),
        shares(after.outcomes, threshold),
        _counts(after.outcomes),
        after.learnt,
        calibration_data,
        base.encoder.fingerprint if base.encoder is not None else None,
        learnt.kinds,
        _others(recipe, base, bounds),
        base.kind is not ModelKind.CLASSIFIER,
    )


def _others(recipe: Recipe, base: BaseModel, bounds: Mapping[str, float]) -> list[OtherReader]:
    return [
        OtherReader(kept.encoder, shares(kept.outcomes, threshold_within(Evidence(kept.outcomes), bounds)))
        for kept in learnt_by_others(base, recipe.key.layer, recipe.calibration.questions)
    ]


def put_in_force(
    writer: Writer,
    key_map: KeyMap,
    recipe: Recipe,
    router: Router,
    *,
    versions: Mapping[str, str],
    command: str,
) -> None:
    """Commit a key map, with new records for every neuron.

    Args:
        writer: writer of the project.
        key_map: the key map.
        recipe: the resolved recipe of the new snapshot.
        router: makes records with the key map.
        versions: library versions, by library.
        command: the command line.
    """
    views = [
        view for view in writer.project.edits() if view.record.key is not None and view.status != "failed"
    ]
    keys, tokens = {}, {}
    if views:
        subjects = [view.record.subject or guessed_subject(view.prompt) for view in views]
        taken = router.records([view.prompt for view in views], subjects)
        keys = {view.edit_id: record.key for view, record in zip(views, taken, strict=True)}
        tokens = {view.edit_id: record.tokens for view, record in zip(views, taken, strict=True)}
    writer.rekey(
        key_map,
        keys,
        tokens,
        dict.fromkeys(keys),
        recipe=recipe.to_mapping(),
        seed=recipe.seed,
        versions=versions,
        command=command,
    )


def stored_requests(project: Project) -> list[EditRequest]:
    """The edits of a project as requests, without reverted edits."""
    records = [view.record for view in project.edits() if view.status != "reverted"]
    return [
        EditRequest(each.prompt, each.target, each.rephrases, each.locality, each.subject) for each in records
    ]


def _adapted(
    learnt: Learnt,
    calibration_data: CalibrationData,
    recipe: Recipe,
    reader: TextReader,
    reporter: Reporter,
) -> Adapted:
    """The learned scope model, adapted to the project's own data if it has any negatives or rephrases."""
    shown = any(
        each.rephrases or each.hard or each.same_subject for each in calibration_data.calibration_edits
    )
    if not shown and not calibration_data.unrelated:
        return Adapted(learnt.model, learnt.outcomes, (), learnt=False)
    asks = what_they_ask(calibration_data.calibration_edits, learnt.model, reader)
    others = other_questions(calibration_data.calibration_edits, asks, recipe.seed)
    texts = texts_of(calibration_data, others)
    with reporter.progress("learning scope: reading the edits", len(texts), "texts") as progress:
        reading = reader.read(texts, progress.advance)
    return adapted(learnt, calibration_data, others, Readings(reading), recipe.seed)


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    kinds = [outcome.kind for outcome in outcomes]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _calibration_data(recipe: Recipe, edits: Sequence[EditRequest], reporter: Reporter) -> CalibrationData:
    dataset, settings = recipe.dataset, recipe.calibration
    unrelated: list[str] = []
    if dataset is not None and dataset.locality is not None and settings.share:
        unrelated = [prompt for prompt, _ in load_locality(dataset, recipe.task, reporter)]
    if dataset is not None and dataset.calibration is not None:
        rows = load_calibration(dataset, recipe.task, reporter)
        return collect_calibration_data(
            rows,
            unrelated,
            task=recipe.task,
            share=1.0,
            unrelated_share=settings.share,
            most=settings.max_edits,
            seed=recipe.seed,
            excluded=edits,
        )
    return collect_calibration_data(
        edits,
        unrelated,
        task=recipe.task,
        share=settings.share,
        unrelated_share=settings.share,
        most=settings.max_edits,
        seed=recipe.seed,
    )
