"""A project's own edits as episodes: the scope model is adapted to them, and measured on them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from melo_cli.calibration.calibration_data import CalibrationData, CalibrationEdit
from melo_cli.paraphrase.question_frames import KnownQuestions
from melo_cli.paraphrase.subject_swaps import Questions, swap_subject
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import TextReader
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.simulation import (
    Episode,
    EpisodeQuery,
    Outcome,
    PairExamples,
    Readings,
    outcomes_of,
    pairs_of,
)
from melo_cli.scope.training import Learnt, classified

_OTHER_QUESTIONS = 2
_TRIED = 20
_SAME_QUESTION = 0.65
"""Cosine of what two prompts ask, of anybody, from which on they often ask the same in other words: by eye on
zsRE and CounterFact, .6 for a sentence encoder and .7 for a base model's own states."""
_FEWEST_TO_LEARN = 24
"""Least number of edits with rephrases to train the classifier on; fewer edits are only measured."""


@dataclass(frozen=True)
class Adapted:
    """A scope model adapted to a project's own data.

    Attributes:
        model: the scope model.
        corpus: outcomes on the corpus, on kinds of questions that the measured model did not learn from.
        outcomes: outcomes on the project's data, on edits that the measured model did not learn from.
        learnt: whether the classifier was trained on the project's data.
    """

    model: ScopeModel
    corpus: Sequence[Outcome]
    outcomes: Sequence[Outcome]
    learnt: bool


def what_they_ask(
    calibration_edits: Sequence[CalibrationEdit], model: ScopeModel, reader: TextReader
) -> Tensor:
    """What each calibration edit asks, about any subject: `[edits, size]` float32, of unit length."""
    if not calibration_edits:  # none may be drawn where unrelated prompts are
        return torch.empty((0, 0))
    return model.question_parts(
        model.keys(reader.read([calibration_edit.prompt for calibration_edit in calibration_edits]))
    )


def other_questions(
    calibration_edits: Sequence[CalibrationEdit], asks: Tensor, seed: int
) -> dict[str, list[str]]:
    """Same-subject prompts for each prompt, made from rephrases of other edits.

    Data seldom have any, and a router that never saw one takes every question about a subject for the edit's
    question. Edits that ask the same as the prompt, or whose keys say so, are left out.

    Args:
        calibration_edits: the edits.
        asks: the result of `what_they_ask`.
        seed: seed of the draw.
    """
    drawn = random.Random(seed)
    questions, known = Questions(calibration_edits), KnownQuestions(calibration_edits)
    donors = [at for at, edit in enumerate(calibration_edits) if edit.subject and edit.rephrases]
    alike = asks @ asks.T >= _SAME_QUESTION
    same_subject: dict[str, list[str]] = {}
    for at, edit in enumerate(calibration_edits):
        others = (
            calibration_edits[donor]
            for donor in drawn.sample(donors, len(donors))
            if edit.subject and not alike[at, donor]
        )
        different = (
            other
            for other in others
            if other.group != edit.group and not questions.alike(edit, other) and not known.same(edit, other)
        )
        made = (
            swap_subject(drawn.choice(donor.rephrases), str(donor.subject), str(edit.subject))
            for donor in islice(different, _TRIED)
        )
        same_subject[edit.prompt] = [text for text in made if text is not None][:_OTHER_QUESTIONS]
    return same_subject


def texts_of(calibration_data: CalibrationData, others: Mapping[str, Sequence[str]]) -> list[str]:
    """Every text of a project's data that must be read.

    Args:
        calibration_data: the data.
        others: the result of `other_questions`.
    """
    texts = calibration_data.prompts()
    texts += [text for some in others.values() for text in some]
    texts += [each.prompt for each in calibration_data.others]
    return list(dict.fromkeys(view for text in texts for view in asked_views(text)))


def adapted(
    learnt: Learnt,
    calibration_data: CalibrationData,
    others: Mapping[str, Sequence[str]],
    readings: Readings,
    seed: int,
) -> Adapted:
    """Train the classifier on a project's own rephrases and negatives too, if there are enough.

    Subjects are divided into two halves, like the kinds of the corpus. Each half is measured with a model
    that learned from the other.

    Args:
        learnt: the scope model learned from the corpus.
        calibration_data: the project's data.
        others: same-subject prompts by the prompts of the calibration edits.
        readings: readings of all texts.
        seed: seed of the training.
    """
    with_rephrases = [
        calibration_edit
        for calibration_edit in calibration_data.calibration_edits
        if calibration_edit.rephrases
    ]
    if len(with_rephrases) < _FEWEST_TO_LEARN:
        episode = episode_of(
            calibration_data.calibration_edits, (), calibration_data, calibration_data.unrelated, {}
        )
        outcomes = (
            outcomes_of(learnt.model, pairs_of(learnt.model, episode, readings)) if episode.asked else []
        )
        return Adapted(learnt.model, learnt.outcomes, outcomes, learnt=False)
    halves = _halves(calibration_data.calibration_edits)
    tried = [
        pairs_of(
            learnt.model,
            episode_of(
                halves[at], halves[1 - at], calibration_data, calibration_data.unrelated[at::2], others
            ),
            readings,
        )
        for at in (0, 1)
    ]
    corpus: list[Outcome] = []
    own: list[Outcome] = []
    for at in (0, 1):
        examples = PairExamples.joined([learnt.halves[at].examples, tried[at].examples])
        model = classified(learnt.model, examples, seed)
        corpus += learnt.halves[1 - at].outcomes(model)
        own += outcomes_of(model, tried[1 - at])
    whole = PairExamples.joined([learnt.examples, *(pairs.examples for pairs in tried)])
    return Adapted(classified(learnt.model, whole, seed), corpus, own, learnt=True)


def episode_of(
    stored: Sequence[CalibrationEdit],
    beside: Iterable[CalibrationEdit],
    calibration_data: CalibrationData,
    unrelated: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> Episode:
    """An episode of a project's edits.

    Args:
        stored: the edits to measure.
        beside: edits of other subjects, whose prompts must not fire if there are no hard prompts.
        calibration_data: gives the other edits of the project.
        unrelated: unrelated prompts.
        others: same-subject prompts by prompt.
    """
    fill = calibration_data.others[: max(calibration_data.neurons - len(stored), 0)]
    edits = [(calibration_edit.prompt, calibration_edit.subject) for calibration_edit in (*stored, *fill)]
    known = {prompt for prompt, _ in edits}
    asked = [
        EpisodeQuery("rephrase", text, at)
        for at, calibration_edit in enumerate(stored)
        for text in calibration_edit.rephrases
    ]
    hard = [text for calibration_edit in stored for text in calibration_edit.hard] or [
        calibration_edit.prompt for calibration_edit in beside
    ]
    asked += [EpisodeQuery("hard", text) for text in hard if text not in known]
    asked += [
        EpisodeQuery("same_subject", text)
        for calibration_edit in stored
        for text in (*calibration_edit.same_subject, *others.get(calibration_edit.prompt, ()))
        if text not in known
    ]
    asked += [EpisodeQuery("unrelated", text) for text in unrelated if text not in known]
    return Episode(edits, asked)


def _halves(calibration_edits: Sequence[CalibrationEdit]) -> list[list[CalibrationEdit]]:
    groups = list(dict.fromkeys(calibration_edit.group for calibration_edit in calibration_edits))
    part = {group: at % 2 for at, group in enumerate(groups)}
    return [
        [calibration_edit for calibration_edit in calibration_edits if part[calibration_edit.group] == at]
        for at in (0, 1)
    ]
