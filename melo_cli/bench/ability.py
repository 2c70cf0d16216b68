"""What a model can do besides its edits: read prose and answer easy questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from melo_cli.bench.own_data import ChoiceQuestion, choice_questions, held_out_text
from melo_cli.errors import ModelError
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.inference import TokenScores, perplexity
from melo_cli.runtime.loading import OpenProject

Score = TypeVar("Score")


@dataclass(frozen=True)
class AbilityTest:
    """What is asked; by default the files of `data/bench/`.

    Attributes:
        texts: prose, whose perplexity is taken.
        questions: questions with several answers.
    """

    texts: Sequence[str] = field(default_factory=held_out_text)
    questions: Sequence[ChoiceQuestion] = field(default_factory=choice_questions)


@dataclass(frozen=True)
class ChoiceScores:
    """One question's scores.

    Attributes:
        choices: log-likelihood of each choice's text after the question, nats.
        answer: index of the right choice.
    """

    choices: tuple[float, ...]
    answer: int

    @property
    def right(self) -> bool:
        """Whether the right choice is the most likely one."""
        return self.choices.index(max(self.choices)) == self.answer


@dataclass(frozen=True)
class AbilityScores:
    """One model's scores.

    Attributes:
        texts: of each text, its first token left out; none of an encoder-decoder.
        questions: of each question.
    """

    texts: tuple[TokenScores, ...]
    questions: tuple[ChoiceScores, ...]

    @property
    def perplexity(self) -> float | None:
        """Perplexity a token over all texts together; None where no text was scored."""
        return perplexity(self.texts)

    @property
    def share_right(self) -> float:
        """Share of the questions whose right choice is the most likely one."""
        return sum(question.right for question in self.questions) / len(self.questions)


@dataclass(frozen=True)
class Ability:
    """The scores of base and edited model.

    Attributes:
        fired_texts: how many of the scored texts an edit answered; 0 without a router.
        fired_questions: the same of the questions.
    """

    base: AbilityScores
    edited: AbilityScores
    fired_texts: int
    fired_questions: int


def base_scores(opened: OpenProject, test: AbilityTest | None = None) -> AbilityScores:
    """The scores of the weights as they are now, without routes.

    Args:
        opened: the project, or another editor's model.
        test: what is asked; None is melo's own.

    Returns:
        The scores.

    Raises:
        ModelError: the model is a classifier.
        PromptError: a text or question is empty, or longer than the model takes.
    """
    test = _fitting(opened, test)
    texts = _text_scores(opened, test.texts, [None] * len(test.texts))
    return AbilityScores(texts, _choice_scores(opened, test.questions, [None] * len(test.questions)))


def ability(
    opened: OpenProject, base: AbilityScores, test: AbilityTest | None = None, *, routed: bool = True
) -> Ability:
    """The scores of the edited model beside those of the base.

    Args:
        opened: the project, or another editor's model.
        base: what `base_scores` gave for the same test before anything changed the weights.
        test: what is asked; None is melo's own.
        routed: whether `opened.inference` routes. Each text and question then goes where it would as a
            prompt; where no edit fires, the score is that of the base, by the same weights. False where the
            edits are in the weights: everything is scored anew.

    Returns:
        The scores of both.

    Raises:
        ModelError, PromptError: as `base_scores`.
    """
    if not routed:
        return Ability(base, base_scores(opened, test), fired_texts=0, fired_questions=0)
    test = _fitting(opened, test)
    texts = _fired(opened, test.texts)
    questions = _fired(opened, [each.question for each in test.questions])
    text_scores = _text_scores(opened, [test.texts[at] for at in texts], [*texts.values()])
    choice_scores = _choice_scores(opened, [test.questions[at] for at in questions], [*questions.values()])
    edited = AbilityScores(
        _with_fired(base.texts, texts, text_scores),
        _with_fired(base.questions, questions, choice_scores),
    )
    return Ability(base, edited, len(texts), len(questions))


def _fitting(opened: OpenProject, test: AbilityTest | None) -> AbilityTest:
    """The part of the test that this kind of model can be asked."""
    kind = opened.routed.base.kind
    if not kind.generates:
        raise ModelError(
            "a classifier writes no text", where=opened.project.name, hint="use a language model"
        )
    test = test or AbilityTest()
    return test if kind is ModelKind.CAUSAL else AbilityTest([], test.questions)


def _fired(opened: OpenProject, prompts: Sequence[str]) -> dict[int, str | None]:
    """The index of each prompt that an edit answers, and the block that it is answered with."""
    routes = opened.inference.routes(prompts)
    return {at: route.fired.block for at, route in enumerate(routes) if route.fired is not None}


def _with_fired(
    base: Sequence[Score], fired: Mapping[int, str | None], scores: Sequence[Score]
) -> tuple[Score, ...]:
    """The scores of the base, with those of fired prompts in their places."""
    changed = dict(zip(fired, scores, strict=True))
    return tuple(changed.get(at, score) for at, score in enumerate(base))


def _text_scores(
    opened: OpenProject, texts: Sequence[str], blocks: Sequence[str | None]
) -> tuple[TokenScores, ...]:
    # Without a chat template. The first token is the BOS token, or has nothing before it to be scored by.
    ids = [_beginning(opened, text) for text in texts]
    return tuple(opened.inference.scores([EncodedEdit(each[:1], each[1:]) for each in ids], blocks))


def _beginning(opened: OpenProject, text: str) -> tuple[int, ...]:
    """A text's tokens, as many as the model takes."""
    ids = opened.encoder.tokenizer(text).input_ids
    return opened.encoder.known_tokens(ids[: opened.routed.base.max_length])


def _choice_scores(
    opened: OpenProject, questions: Sequence[ChoiceQuestion], blocks: Sequence[str | None]
) -> tuple[ChoiceScores, ...]:
    encoded = [opened.encoder.edit(each.question, choice) for each in questions for choice in each.choices]
    by_choice = [block for each, block in zip(questions, blocks, strict=True) for _ in each.choices]
    scores = iter(opened.inference.scores(encoded, by_choice))
    return tuple(
        ChoiceScores(tuple(next(scores).log_likelihood for _ in each.choices), each.answer)
        for each in questions
    )
