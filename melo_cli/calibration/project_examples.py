"""A project's own edits as trials: what the scope model is moved by, and measured on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from melo_cli.calibration.calibration_data import Anchor, Material
from melo_cli.paraphrase.subject_swaps import Questions, swap_subject
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import Reader
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.training import (
    Asked,
    Learnt,
    Lesson,
    Outcome,
    Readings,
    Trial,
    classified,
    outcomes_of,
    pairs_of,
)

_OTHER_QUESTIONS = 2
_TRIED = 20
_NEAREST_PART = 4
_FEWEST_TO_LEARN = 24
"""Edits with rephrases that the classifier is moved by; fewer are measured alone."""


@dataclass(frozen=True)
class Moved:
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


def what_they_ask(anchors: Sequence[Anchor], model: ScopeModel, reader: Reader) -> Tensor:
    """What each anchor's prompt asks, of anybody: `[anchors, size]`, each of unit length."""
    return model.question_parts(model.keys(reader.read([anchor.prompt for anchor in anchors])))


def other_questions(anchors: Sequence[Anchor], asks: Tensor, seed: int) -> dict[str, list[str]]:
    """For each prompt other questions about its subject: rephrases of other edits, asked about it.

    Data seldom have any, and a router that never saw one takes every question about a subject for the edit's.
    An edit whose question is near to the prompt's own may ask the same in other words, so of those drawn for
    it the nearest quarter gives none.

    Args:
        asks: `what_they_ask`.
    """
    drawn = random.Random(seed)
    questions = Questions(anchors)
    donors = [at for at, anchor in enumerate(anchors) if anchor.subject and anchor.rephrases]
    found: dict[str, list[str]] = {}
    for at, anchor in enumerate(anchors):
        others = (
            donor
            for donor in drawn.sample(donors, len(donors))
            if anchors[donor].group != anchor.group and not questions.alike(anchor, anchors[donor])
        )
        tried = list(islice(others, _TRIED)) if anchor.subject else []
        nearest = (asks[tried] @ asks[at]).topk(len(tried) // _NEAREST_PART).indices.tolist()
        made = (
            swap_subject(drawn.choice(donor.rephrases), str(donor.subject), str(anchor.subject))
            for donor in (anchors[donor] for place, donor in enumerate(tried) if place not in nearest)
        )
        found[anchor.prompt] = [text for text in made if text is not None][:_OTHER_QUESTIONS]
    return found


def texts_of(material: Material, others: Mapping[str, Sequence[str]]) -> list[str]:
    """Every text of a project's data that has to be read.

    Args:
        others: as `other_questions` made them.
    """
    texts = material.prompts()
    texts += [text for some in others.values() for text in some]
    texts += [each.prompt for each in material.others]
    return list(dict.fromkeys(view for text in texts for view in asked_views(text)))


def moved(
    learnt: Learnt, material: Material, others: Mapping[str, Sequence[str]], readings: Readings, seed: int
) -> Moved:
    """Move a scope model by a project's own rephrases and negatives, where there are enough.

    Subjects are dealt into two halves, as the kinds of the corpus are: what is said of one half of both was
    learnt from the other.

    Args:
        others: other questions about the subjects of anchors, by their prompts.
    """
    with_rephrases = [anchor for anchor in material.anchors if anchor.rephrases]
    if len(with_rephrases) < _FEWEST_TO_LEARN:
        trial = trial_of(material.anchors, (), material, material.unrelated, {})
        outcomes = outcomes_of(learnt.model, pairs_of(learnt.model, trial, readings)) if trial.asked else []
        return Moved(learnt.model, learnt.outcomes, outcomes, learnt=False)
    halves = _halves(material.anchors)
    tried = [
        pairs_of(
            learnt.model,
            trial_of(halves[at], halves[1 - at], material, material.unrelated[at::2], others),
            readings,
        )
        for at in (0, 1)
    ]
    corpus: list[Outcome] = []
    own: list[Outcome] = []
    for at in (0, 1):
        lesson = Lesson.joined([learnt.halves[at].lesson, tried[at].lesson])
        model = classified(learnt.model, lesson, seed)
        corpus += learnt.halves[1 - at].outcomes(model)
        own += outcomes_of(model, tried[1 - at])
    whole = Lesson.joined([learnt.lesson, *(pairs.lesson for pairs in tried)])
    return Moved(classified(learnt.model, whole, seed), corpus, own, learnt=True)


def trial_of(
    stored: Sequence[Anchor],
    beside: Iterable[Anchor],
    material: Material,
    unrelated: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> Trial:
    """Edits as a project will hold them, the other subjects' questions among what must not fire."""
    fill = material.others[: max(material.neurons - len(stored), 0)]
    edits = [(anchor.prompt, anchor.subject) for anchor in (*stored, *fill)]
    known = {prompt for prompt, _ in edits}
    asked = [Asked("rephrase", text, at) for at, anchor in enumerate(stored) for text in anchor.rephrases]
    hard = [text for anchor in stored for text in anchor.hard] or [anchor.prompt for anchor in beside]
    asked += [Asked("hard", text) for text in hard if text not in known]
    asked += [
        Asked("same_subject", text)
        for anchor in stored
        for text in (*anchor.same_subject, *others.get(anchor.prompt, ()))
        if text not in known
    ]
    asked += [Asked("unrelated", text) for text in unrelated if text not in known]
    return Trial(edits, asked)


def _halves(anchors: Sequence[Anchor]) -> list[list[Anchor]]:
    groups = list(dict.fromkeys(anchor.group for anchor in anchors))
    part = {group: at % 2 for at, group in enumerate(groups)}
    return [[anchor for anchor in anchors if part[anchor.group] == at] for at in (0, 1)]
