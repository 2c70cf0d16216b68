"""The sweep: every way to make a key is fitted on some subjects and measured on others; the best is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melo_cli.architecture import embedding_name, key_layer_candidates, resolve_key_layer
from melo_cli.base_model import BaseModel
from melo_cli.calibration.learning import Lesson, contrastive, whitening
from melo_cli.calibration.material import Anchor, Material
from melo_cli.calibration.measure import Distances, Trial, measure, together
from melo_cli.calibration.prompts import Pair, PairMaker, PromptPool, folds
from melo_cli.calibration.states import TokenStates, token_states
from melo_cli.encoding import Encoder
from melo_cli.errors import DatasetError
from melo_cli.keys import KeyTransform
from melo_cli.recipe import Recipe
from melo_cli.reporter import Reporter

_FOLDS = 3
_FEWEST_TO_LEARN = 24
"""Anchors that a learned key needs; with fewer, a whitened or learned one fits nothing but themselves."""
_ENOUGH_IN_ONE_FOLD = 150
"""Anchors from which on one fold tells candidates apart; only the chosen one is measured on all then."""
_LONG = 1e5
"""Tokens of all prompts together from which on one fold has to do, for time."""
_SWAPS = 2
_NEGATIVES = 3
_CLOSE = 0.01
"""A later candidate has to reach this much more: layers and poolings are tried simplest first."""
_SMALLEST_RADIUS = 1e-3
_PROMPTS_AN_ANCHOR = 30
_MOST_TOKENS = 5e5
"""Tokens of all prompts together, about: their states are held in memory."""
_MOST_WORK = 4e12
"""Multiplications that the states of layers above the embeddings may cost on a CPU, else none is tried."""


@dataclass(frozen=True)
class Candidate:
    """One way to make a key.

    Attributes:
        pooling: `last`, `first`, `mean` or `learned`.
        method: `as is` (to unit length), `whitened`, or `learned` (a projection, and token weights where the
            pooling is `learned`).
    """

    layer: str
    pooling: str
    method: str


@dataclass(frozen=True)
class SweepRow:
    """What one candidate gave, on subjects that it was not fitted on.

    Attributes:
        reach: share of rephrases led to the right answer at `radius`.
        nearest_right: share whose nearest neuron is right, at any radius: the most that the keys allow.
        false_fires: share of negatives that fire, by kind.
        curve: reach and share of hard negatives that fire, as the radius grows.
    """

    candidate: Candidate
    radius: float
    reach: float
    nearest_right: float
    false_fires: dict[str, float]
    seconds: float
    curve: list[tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the project."""
        return {
            "layer": self.candidate.layer,
            "pooling": self.candidate.pooling,
            "method": self.candidate.method,
            "radius": self.radius,
            "reach": self.reach,
            "nearest_right": self.nearest_right,
            "false_fires": self.false_fires,
            "seconds": self.seconds,
            "curve": [list(point) for point in self.curve],
        }


@dataclass(frozen=True)
class Calibration:
    """The key that was chosen, and why.

    Attributes:
        chosen: its row, measured over all folds.
        skipped: layers that were too costly to try.
        material: the prompts that it rests on.
    """

    transform: KeyTransform
    radius: float
    chosen: SweepRow
    sweep: list[SweepRow]
    skipped: list[str]
    material: Material


@dataclass(frozen=True)
class Fold:
    """What a candidate is fitted on, and what it is measured on then."""

    lesson: Lesson
    trial: Trial

    def places(self) -> set[int]:
        """Every prompt in it."""
        return self.lesson.places() | self.trial.places()


def calibrate(
    base: BaseModel,
    encoder: Encoder,
    recipe: Recipe,
    targets: Sequence[str],
    material: Material,
    reporter: Reporter,
) -> Calibration:
    """Choose layer, pooling, transform and radius by measuring.

    Subjects are dealt into folds. A candidate is fitted on all folds but one and measured on that one, with
    neurons of this and another fold and of the edits outside; the prompts of the rest, and prompts made with
    their subjects and questions, must not fire. The candidate that reaches the most rephrases within the
    false fires allowed wins; it is fitted again on everything, and its radius is the one measured over all
    folds.

    Args:
        targets: full names of the target modules, which run after every candidate layer.

    Raises:
        DatasetError: there is no prompt to measure on.
    """
    if not material.anchors:
        raise DatasetError(
            "there is no prompt to calibrate on",
            where="key.radius=auto",
            mend="give more edits, other rows in dataset.calibration, or a key.radius",
        )
    started = time.monotonic()
    material = _affordable(material, encoder)
    pool, made, whole = prompts_of(material, recipe.seed)
    encoded = [encoder.prompt(text) for text in pool.texts]
    few = len(material.anchors) < _ENOUGH_IN_ONE_FOLD and sum(map(len, encoded)) < _LONG
    sweeping = made if few else made[:1]
    swept = set().union(*(fold.places() for fold in sweeping))
    layers, skipped = _layers(base, recipe, targets, [encoded[place] for place in swept])
    sweep: list[SweepRow] = []
    best: SweepRow | None = None
    candidates = list(_candidates(layers, recipe, learn=len(made) > 1))
    with reporter.progress("calibrating", len(candidates) + 1, "ways") as progress:
        states = token_states(base, layers, encoded, swept)
        for candidate in candidates:
            row = _measured(candidate, states[candidate.layer], sweeping, recipe)
            sweep.append(row)
            if best is None or row.reach > best.reach + _CLOSE:
                best = row
            progress.advance()
        assert best is not None, "the embeddings are always tried"
        layer = best.candidate.layer
        every = token_states(base, [layer], encoded, range(len(encoded)))[layer]
        chosen = best if sweeping is made else _measured(best.candidate, every, made, recipe)
        transform = fitted(best.candidate, every, whole, recipe)
        progress.advance()
    reporter.info(f"calibrated in {time.monotonic() - started:.0f} s")
    return Calibration(
        transform,
        max(chosen.radius, _SMALLEST_RADIUS),
        chosen,
        sweep,
        skipped,
        material,
    )


def _affordable(material: Material, encoder: Encoder) -> Material:
    """Fewer anchors where prompts are long."""
    lengths = [len(encoder.prompt(anchor.prompt)) for anchor in material.anchors]
    most = max(int(_MOST_TOKENS / (_PROMPTS_AN_ANCHOR * sum(lengths) / len(lengths))), _FEWEST_TO_LEARN)
    return replace(material, anchors=material.anchors[:most], unrelated=material.unrelated[: 2 * most])


def prompts_of(
    material: Material, seed: int, pool: PromptPool | None = None
) -> tuple[PromptPool, list[Fold], Lesson]:
    """All prompts, what each fold learns from and is measured on, and the lesson of everything.

    Args:
        pool: takes the prompts, where there are some already.
    """
    pool = pool or PromptPool()
    parts = folds(material, _FOLDS) if len(material.anchors) >= _FEWEST_TO_LEARN else []
    unrelated = [pool.place(text) for text in material.unrelated]
    whole = _lesson(pool, material.anchors, unrelated, seed)
    if not parts:
        everything = list(material.anchors)
        trial = _trial(pool, everything, _filled(everything, material), everything, unrelated, seed)
        return pool, [Fold(whole, trial)], whole
    made = []
    for at, part in enumerate(parts):
        beside, donors = parts[(at + 1) % _FOLDS], parts[(at + 2) % _FOLDS]
        fitting = unrelated[at % 2 :: 2]
        lesson = _lesson(pool, [*beside, *donors], fitting, seed)
        stored = _filled([*part, *beside], material)
        trial = _trial(pool, part, stored, donors, unrelated[(at + 1) % 2 :: 2], seed)
        made.append(Fold(lesson, trial))
    return pool, made, whole


def _filled(stored: Sequence[Anchor], material: Material) -> list[Anchor]:
    """Stored anchors, with other edits up to as many as the project will hold."""
    return [*stored, *material.others[: max(material.neurons - len(stored), 0)]]


def _lesson(pool: PromptPool, anchors: Sequence[Anchor], unrelated: Sequence[int], seed: int) -> Lesson:
    maker = PairMaker(pool, anchors, anchors, seed=seed)
    pairs = [pair for a in anchors for pair in maker.pairs(a, swaps=_SWAPS, negatives=_NEGATIVES)]
    return Lesson(pairs, list(unrelated))


def _trial(
    pool: PromptPool,
    asked: Sequence[Anchor],
    stored: Sequence[Anchor],
    donors: Sequence[Anchor],
    unrelated: Sequence[int],
    seed: int,
) -> Trial:
    maker = PairMaker(pool, donors, stored, seed=seed + 1)
    own: list[tuple[Anchor, Pair]] = [
        (anchor, pair) for anchor in asked for pair in maker.pairs(anchor, swaps=0, negatives=_NEGATIVES)
    ]
    neurons = [(pool.place(anchor.prompt), anchor.answer) for anchor in stored]
    known = {place for place, _ in neurons}
    hard = [pool.place(text) for anchor in asked for text in anchor.hard]
    if not hard:  # those of the data are the harder ones: others beside them would hide how often they fire
        hard = [place for _, pair in own for place, _ in pair.other_subject]
        hard += [pool.place(anchor.prompt) for anchor in donors]
    return Trial(
        neurons,
        [(pair.rephrase, anchor.answer) for anchor, pair in own],
        {
            "unrelated": [place for place in unrelated if place not in known],
            "hard": [place for place in hard if place not in known],
            "same_subject": [place for _, pair in own for place, _ in pair.other_question],
        },
    )


def _layers(
    base: BaseModel, recipe: Recipe, targets: Sequence[str], encoded: Sequence[Sequence[int]]
) -> tuple[list[str], list[str]]:
    """The layers to try, and those that would take too long on these prompts.

    A forward pass takes two operations a weight and token, and goes half way up the stack.
    """
    if recipe.key.layer != "auto":
        return [resolve_key_layer(base, recipe.key.layer)], []
    names = key_layer_candidates(base, targets)
    work = sum(map(len, encoded)) * base.model.num_parameters(exclude_embeddings=True)
    if base.model.device.type != "cpu" or work < _MOST_WORK:
        return names, []
    return [name for name in names if name == embedding_name(base)], names[1:]


def _candidates(layers: Sequence[str], recipe: Recipe, *, learn: bool) -> Iterator[Candidate]:
    """In order of preference: those that come first win ties."""
    wanted = recipe.key.pooling
    for layer in layers:
        for pooling in ("mean", "last", "first"):
            if wanted == pooling or (wanted == "auto" and pooling != "first"):
                yield Candidate(layer, pooling, "as is")
                if learn and pooling == "mean":
                    yield Candidate(layer, pooling, "whitened")
        if learn and wanted in ("auto", "mean"):
            yield Candidate(layer, "mean", "learned")
        if learn and wanted in ("auto", "learned"):
            yield Candidate(layer, "learned", "learned")
        elif wanted == "learned":
            raise DatasetError(
                f"a learned key needs {_FEWEST_TO_LEARN} prompts to calibrate on",
                where="key.pooling=learned",
                mend="give more edits or dataset.calibration, or set key.pooling=auto",
            )


def fitted(candidate: Candidate, states: TokenStates, lesson: Lesson, recipe: Recipe) -> KeyTransform:
    """The transform of a candidate, fitted on a lesson; `states` are those of its layer."""
    settings = recipe.calibration
    if candidate.method == "learned":
        return contrastive(
            states,
            lesson,
            pooling=candidate.pooling,
            size=settings.size,
            steps=settings.steps,
            seed=recipe.seed,
        )
    if candidate.method == "whitened":
        return whitening(states, lesson, pooling=candidate.pooling, size=settings.size)
    return KeyTransform(candidate.pooling, unit=True)


def _measured(candidate: Candidate, states: TokenStates, made: Sequence[Fold], recipe: Recipe) -> SweepRow:
    started = time.monotonic()
    found = together(
        [measure(fitted(candidate, states, fold.lesson, recipe), states, fold.trial) for fold in made]
    )
    radius = found.radius(recipe.routing.max_false_fire.model_dump())
    return SweepRow(
        candidate,
        radius,
        found.reach(radius),
        found.nearest_right,
        found.false_fires(radius),
        time.monotonic() - started,
        _curve(found),
    )


def _curve(found: Distances) -> list[tuple[float, float]]:
    """Reach and hard negatives that fire over growing radii; unrelated prompts where no hard ones are."""
    kind = next((kind for kind in ("hard", "unrelated") if len(found.fired.get(kind, ()))), None)
    finite = found.reached[np.isfinite(found.reached)]
    if kind is None or not len(finite):
        return []
    return [
        (found.reach(radius), found.false_fires(radius)[kind])
        for radius in np.linspace(0.0, 1.5 * float(finite.max()), 31).tolist()
    ]
