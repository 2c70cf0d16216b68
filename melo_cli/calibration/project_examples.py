"""A project's own edits as trials: what the scope model is moved by, and measured on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from melo_cli.calibration.calibration_data import CalibrationData, CalibrationEdit
from melo_cli.paraphrase.subject_swaps import Questions, swap_subject
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import Reader
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.training import (
    Episode,
    EpisodeQuery,
    Learnt,
    Outcome,
    PairExamples,
    Readings,
    classified,
    outcomes_of,
    pairs_of,
)

_OTHER_QUESTIONS = 2
_TRIED = 20
_SAME_QUESTION = 0.65
"""Cosine of what two prompts ask, of anybody, from which on they often ask the same in other words: by eye on
zsRE and CounterFact, .6 for a sentence encoder and .7 for a base model's own states."""
_FEWEST_TO_LEARN = 24
"""Edits with rephrases that the classifier is moved by; fewer are measured alone."""


@dataclass(frozen=True)
class Adapted:
    """A scope model after a project's own data.

    Attributes:
        corpus, outcomes: of the corpus and of the project's data, on kinds of questions and edits that the
            measured model did not learn from.
        learnt: whether the classifier was moved by them.
    """

    model: ScopeModel
    corpus: Sequence[Outcome]
    outcomes: Sequence[Outcome]
    learnt: bool


def what_they_ask(calibration_edits: Sequence[CalibrationEdit], model: ScopeModel, reader: Reader) -> Tensor:
    """What each anchor's prompt asks, of anybody: `[calibration_edits, size]`, each of unit length."""
    return model.question_parts(
        model.keys(reader.read([calibration_edit.prompt for calibration_edit in calibration_edits]))
    )


def other_questions(
    calibration_edits: Sequence[CalibrationEdit], asks: Tensor, seed: int
) -> dict[str, list[str]]:
    """For each prompt other questions about its subject: rephrases of other edits, asked about it.

    Data seldom have any, and a router that never saw one takes every question about a subject for the edit's.
    Edits that ask the same as the prompt, or seem to by its key, give none.

    Args:
        asks: `what_they_ask`.
    """
    drawn = random.Random(seed)
    questions = Questions(calibration_edits)
    donors = [at for at, edit in enumerate(calibration_edits) if edit.subject and edit.rephrases]
    alike = asks @ asks.T >= _SAME_QUESTION
    found: dict[str, list[str]] = {}
    for at, edit in enumerate(calibration_edits):
        others = (
            calibration_edits[donor]
            for donor in drawn.sample(donors, len(donors))
            if edit.subject and not alike[at, donor]
        )
        apart = (other for other in others if other.group != edit.group and not questions.alike(edit, other))
        made = (
            swap_subject(drawn.choice(donor.rephrases), str(donor.subject), str(edit.subject))
            for donor in islice(apart, _TRIED)
        )
        found[edit.prompt] = [text for text in made if text is not None][:_OTHER_QUESTIONS]
    return found


def texts_of(calibration_data: CalibrationData, others: Mapping[str, Sequence[str]]) -> list[str]:
    """Every text of a project's data that has to be read.

    Args:
        others: as `other_questions` made them.
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
    """Move a scope model by a project's own rephrases and negatives, where there are enough.

    Subjects are dealt into two halves, as the kinds of the corpus are: what is said of one half of both was
    learnt from the other.

    Args:
        others: other questions about the subjects of anchors, by their prompts.
    """
    with_rephrases = [
        calibration_edit
        for calibration_edit in calibration_data.calibration_edits
        if calibration_edit.rephrases
    ]
    if len(with_rephrases) < _FEWEST_TO_LEARN:
        episode = trial_of(
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
            trial_of(halves[at], halves[1 - at], calibration_data, calibration_data.unrelated[at::2], others),
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


def trial_of(
    stored: Sequence[CalibrationEdit],
    beside: Iterable[CalibrationEdit],
    calibration_data: CalibrationData,
    unrelated: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> Episode:
    """Edits as a project will hold them, the other subjects' questions among what must not fire."""
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
