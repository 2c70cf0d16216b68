"""What each part of calibration is worth: pooling, projection, own rephrases, the rule for radii, the bounds.

    python benchmarks/ablate_keys.py RECIPE [--set KEY=VALUE ...]

Calibrates on the recipe's data as `melo edit` does, with keys at the input embeddings, and measures every
variant on the folds that it was not fitted on. Prints Markdown tables; shares in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melo_cli.architecture import embedding_name
from melo_cli.base_model import load_base_model
from melo_cli.calibration.calibrate import Candidate, Fold, fitted, prompts_of
from melo_cli.calibration.material import Material, collect_material
from melo_cli.calibration.measure import (
    Answers,
    Distances,
    Floats,
    Rule,
    measure,
    together,
    up_to_the_nearest_foreign_key,
)
from melo_cli.calibration.states import Embedded, TokenStates
from melo_cli.datasets import load_edits, load_locality
from melo_cli.encoding import Encoder
from melo_cli.keys import KeyTransform
from melo_cli.recipe import Recipe, load_recipe
from melo_cli.reporter import SilentReporter


@dataclass(frozen=True)
class Bench:
    """Everything that a variant is measured with."""

    recipe: Recipe
    states: TokenStates
    folds: Sequence[Fold]
    made: Sequence[Fold]

    def keys(self, candidate: Candidate, folds: Sequence[Fold] | None = None) -> list[KeyTransform]:
        """A key for each fold, fitted on what that fold learns from; `folds` teach, where they are given."""
        taught = self.folds if folds is None else folds
        return [fitted(candidate, self.states, fold.lesson, self.recipe) for fold in taught]

    def distances(
        self, keys: Sequence[KeyTransform], rule: Rule = up_to_the_nearest_foreign_key
    ) -> Distances:
        """Over all folds; `rule` says which neurons may answer."""
        return together(
            [
                measure(key, self.states, fold.trial, rule=rule)
                for key, fold in zip(keys, self.folds, strict=True)
            ]
        )

    def row(self, name: str, found: Distances, **allowed: float) -> str:
        """One line of a table."""
        bounds = self.recipe.routing.max_false_fire.model_dump() | allowed
        radius = found.radius(bounds)
        fires = found.false_fires(radius)
        shares = [found.reach(radius), found.nearest_right, *(fires.get(kind) for kind in bounds)]
        cells = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        return f"| {name} | {radius:.2f} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    bench = _bench(_arguments())
    keys = {name: bench.keys(candidate) for name, candidate in _KEYS.items()}
    given = bench.distances(keys[_LEARNED])
    lines = [_HEAD, *(bench.row(name, bench.distances(fitted_keys)) for name, fitted_keys in keys.items())]
    own = bench.distances(bench.keys(_KEYS[_LEARNED], bench.made))
    lines.append(bench.row("the same, from rephrases that calibration makes", own))
    for name in (_PROJECTED, _LEARNED):
        lines += ["", f"{name}:", "", _HEAD]
        lines += [bench.row(rule, bench.distances(keys[name], _RULES[rule])) for rule in _RULES]
    lines += ["", _HEAD]
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 1.0):
        lines.append(bench.row(f"same subject at most {100 * share:.0f}%", given, same_subject=share))
    print("\n".join(lines))  # noqa: T201


_HEAD = (
    "| | radius | reach | nearest right | unrelated | hard | same subject |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
_PROJECTED, _LEARNED = "mean, projection", "token weights and projection"
_KEYS = {
    "last token": Candidate("", "last", "as is"),
    "mean": Candidate("", "mean", "as is"),
    "mean, whitened": Candidate("", "mean", "whitened"),
    _PROJECTED: Candidate("", "mean", "learned"),
    _LEARNED: Candidate("", "learned", "learned"),
}


def _by_margin(ratio: float) -> Rule:
    """Fires only where the nearest key of another answer is so much farther."""

    def rule(away: Floats, foreign: Floats, answers: Answers) -> NDArray[np.bool_]:
        nearest = answers[away.argmin(axis=1)][:, None] == answers[None]
        first = away.min(axis=1)[:, None]
        second = np.where(nearest, np.inf, away).min(axis=1)[:, None]
        return (away <= foreign) & (ratio * away <= np.where(nearest, second, first))

    return rule


_RULES = {
    "balls of two answers do not overlap (the paper)": lambda away, foreign, _: away <= foreign / 2,
    "a ball reaches up to the nearest key of another answer": up_to_the_nearest_foreign_key,
    "the same, and another answer is 1.05 times as far": _by_margin(1.05),
    "the same, and another answer is 1.2 times as far": _by_margin(1.2),
    "the nearest key decides alone": lambda away, *_: np.ones_like(away, np.bool_),
}


def _bench(arguments: argparse.Namespace) -> Bench:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    assert recipe.dataset is not None, "the recipe has data"
    base = load_base_model(recipe.model, recipe.task)
    encoder = Encoder(base, truncate=True)
    edits = load_edits(recipe.dataset, recipe.task, SilentReporter())
    unrelated = [prompt for prompt, _ in load_locality(recipe.dataset, recipe.task, SilentReporter())]
    share = recipe.calibration.share
    material = collect_material(
        edits,
        unrelated,
        task=recipe.task,
        share=share,
        unrelated_share=share,
        most=recipe.calibration.max_edits,
        seed=recipe.seed,
    )
    pool, folds, _ = prompts_of(material, recipe.seed)
    _, made, _ = prompts_of(_without_rephrases(material), recipe.seed, pool)
    encoded = [encoder.prompt(text) for text in pool.texts]
    return Bench(recipe, Embedded(base, embedding_name(base), encoded), folds, made)


def _without_rephrases(material: Material) -> Material:
    return replace(material, anchors=tuple(replace(anchor, rephrases=()) for anchor in material.anchors))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
