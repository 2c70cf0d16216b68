"""How well keys route: how many rephrases they reach at the false fires allowed, and at which radius."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from melo_cli.calibration.states import TokenStates
from melo_cli.keys import KeyTransform

KINDS = ("unrelated", "hard", "same_subject")
Floats = NDArray[np.float64]
Answers = NDArray[np.intp]
"""Answers by number: equal ones have the same."""
Rule = Callable[[Floats, Floats, Answers], NDArray[np.bool_]]
"""Which neurons may answer which prompts, at any radius `[n, m]`: of the distances `[n, m]`, those from each
neuron to the nearest with another answer `[m]`, and the neurons' answers `[m]`."""


@dataclass(frozen=True)
class Trial:
    """Prompts to measure on, by place.

    Attributes:
        neurons: the prompts that are stored, with what each answers.
        rephrases: what should fire, with the right answer.
        negatives: what should not, by kind (`KINDS`).
    """

    neurons: Sequence[tuple[int, str]]
    rephrases: Sequence[tuple[int, str]]
    negatives: Mapping[str, Sequence[int]]

    def places(self) -> set[int]:
        """Every prompt in it."""
        asked = (place for place, _ in (*self.neurons, *self.rephrases))
        return {*asked, *(place for places in self.negatives.values() for place in places)}


@dataclass(frozen=True)
class Distances:
    """What one or more trials gave.

    Attributes:
        reached: distance at which each rephrase is led to the right answer; infinite where another edit is
            nearer.
        nearest_right: share of rephrases whose nearest neuron gives the right answer, however far it is.
        fired: by kind, the distance from which on a negative fires.
    """

    reached: Floats
    nearest_right: float
    fired: Mapping[str, Floats]

    def reach(self, radius: float) -> float:
        """Share of the rephrases that a radius leads to the right answer."""
        return float((self.reached <= radius).mean()) if len(self.reached) else 0.0

    def false_fires(self, radius: float) -> dict[str, float]:
        """By kind, the share of negatives that fire; kinds without prompts are left out."""
        return {kind: float((away <= radius).mean()) for kind, away in self.fired.items() if len(away)}

    def radius(self, allowed: Mapping[str, float]) -> float:
        """The largest radius whose false fires stay within what is allowed for each kind.

        No larger than reaches any more rephrases.
        """
        limits = [_largest(away, allowed[kind]) for kind, away in self.fired.items() if len(away)]
        useful = self.reached[np.isfinite(self.reached)]
        limits += [float(useful.max())] if len(useful) else []
        return min(limits, default=0.0)


def up_to_the_nearest_foreign_key(away: Floats, foreign: Floats, _: Answers) -> NDArray[np.bool_]:
    """The store's rule (`store.clusters`): a ball reaches up to the nearest key of another answer."""
    return away <= foreign


def measure(
    transform: KeyTransform,
    states: TokenStates,
    trial: Trial,
    *,
    rule: Rule = up_to_the_nearest_foreign_key,
) -> Distances:
    """Distances of a trial's prompts to its neurons."""
    stored = keys_of(transform, states, [place for place, _ in trial.neurons])
    numbers: dict[str, int] = {}
    answers = _numbered([answer for _, answer in trial.neurons], numbers)
    foreign = np.where(answers[:, None] != answers[None], _apart(stored, stored), np.inf).min(axis=1)
    asked = keys_of(transform, states, [place for place, _ in trial.rephrases])
    away = _apart(asked, stored)
    wanted = _numbered([answer for _, answer in trial.rephrases], numbers)
    near, answer = _firing(away, rule(away, foreign, answers), answers)
    return Distances(
        reached=np.where(answer == wanted, near, np.inf),
        nearest_right=float((answers[away.argmin(axis=1)] == wanted).mean()) if len(away) else 0.0,
        fired={
            kind: _firing(far, rule(far, foreign, answers), answers)[0]
            for kind, places in trial.negatives.items()
            for far in (_apart(keys_of(transform, states, places), stored),)
        },
    )


def together(found: Sequence[Distances]) -> Distances:
    """Several trials as one."""
    counts = [len(each.reached) for each in found]
    return Distances(
        np.concatenate([each.reached for each in found]),
        float(np.average([each.nearest_right for each in found], weights=counts)) if sum(counts) else 0.0,
        {kind: np.concatenate([each.fired[kind] for each in found]) for kind in found[0].fired},
    )


@torch.no_grad()
def keys_of(transform: KeyTransform, states: TokenStates, places: Sequence[int]) -> Floats:
    """Keys `[n, k]` of prompts by place."""
    parts = (states.batch(places[start : start + 64]) for start in range(0, len(places), 64))
    keys = [transform(hidden, mask).cpu().numpy().astype(np.float64) for hidden, mask in parts]
    return np.concatenate(keys) if keys else np.empty((0, 0))


def _numbered(answers: Sequence[str], numbers: dict[str, int]) -> Answers:
    """Each answer's number in `numbers`, which takes new ones: far quicker to compare than texts."""
    return np.array([numbers.setdefault(answer, len(numbers)) for answer in answers], np.intp)


def _apart(points: Floats, stored: Floats) -> Floats:
    """L2 distances `[n, m]`."""
    if not len(points):
        return np.empty((0, len(stored)))
    squared = (points**2).sum(1)[:, None] + (stored**2).sum(1)[None] - 2 * points @ stored.T
    result: Floats = np.sqrt(np.maximum(squared, 0.0))
    return result


def _firing(away: Floats, may: NDArray[np.bool_], answers: Answers) -> tuple[Floats, Answers]:
    """For each prompt the distance from which on it fires, and the answer that it then gets."""
    inside = np.where(may, away, np.inf)
    return inside.min(axis=1, initial=np.inf), answers[inside.argmin(axis=1)]


def _largest(away: Floats, share: float) -> float:
    """The largest radius within which no more than a share of these distances lies."""
    ordered = np.sort(away)
    allowed = int(share * len(ordered))
    return float(np.nextafter(ordered[allowed], 0.0)) if allowed < len(ordered) else float("inf")
