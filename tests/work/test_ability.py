"""What base and edited model can do besides the edits: perplexity of prose, and easy questions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from melo_cli.bench.ability import AbilityTest, ability, base_scores
from melo_cli.bench.own_data import ChoiceQuestion
from melo_cli.editing import EditSummary
from melo_cli.errors import ModelError
from melo_cli.runtime.loading import OpenProject, open_project

Shared = Callable[..., OpenProject]
EDITED = "Where does the river end"  # edited to Paris
WORDS = ("Smith", "Paris", "London", "Cologne")
TEXTS = ["He was born in London and studied law.", EDITED, "The court holds that it was opened in 1889."]
QUESTIONS = [
    ChoiceQuestion("He was born in Cologne", WORDS, 0),
    ChoiceQuestion(EDITED, WORDS, 1),
    ChoiceQuestion("by whom was the tower built", WORDS, 2),
]
TEST = AbilityTest(TEXTS, QUESTIONS)


def perplexity_by_hand(opened: OpenProject) -> float:
    """Of the texts under the plain model, one after the other, without melo's batches."""
    losses: list[float] = []
    for text in TEXTS:
        ids = torch.tensor([opened.routed.tokenizer(text).input_ids])
        with torch.no_grad():
            logits = opened.routed.base.model(ids).logits[0, :-1]
        losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    return math.exp(sum(losses) / len(losses))


def likeliest_by_hand(opened: OpenProject, question: ChoiceQuestion) -> int:
    before = list(opened.encoder.prompt(question.question))
    found = []
    for choice in question.choices:
        ids = torch.tensor([before + list(opened.encoder.target(question.question, choice)[:-1])])
        with torch.no_grad():
            scores = opened.routed.base.model(ids).logits[0].log_softmax(-1)
        found.append(sum(float(scores[at - 1, ids[0, at]]) for at in range(len(before), ids.shape[1])))
    return found.index(max(found))


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_llama"])
def test_perplexity_and_choices_of_the_base_are_those_of_the_plain_model(shared: Shared, kind: str) -> None:
    opened = shared(kind)
    base = base_scores(opened, TEST)
    assert base.perplexity == pytest.approx(perplexity_by_hand(opened), rel=1e-4)
    likeliest = [likeliest_by_hand(opened, question) for question in QUESTIONS]
    assert [row.choices.index(max(row.choices)) for row in base.questions] == likeliest
    right = [at == question.answer for at, question in zip(likeliest, QUESTIONS, strict=True)]
    assert base.share_right == sum(right) / 3


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_llama"])
def test_what_an_edit_answers_is_scored_with_it_and_all_else_is_the_base(shared: Shared, kind: str) -> None:
    opened = shared(kind)
    found = ability(opened, base_scores(opened, TEST), TEST)
    assert (found.fired_texts, found.fired_questions) == (1, 1)
    same_texts = [a == b for a, b in zip(found.base.texts, found.edited.texts, strict=True)]
    same_choices = [a == b for a, b in zip(found.base.questions, found.edited.questions, strict=True)]
    assert same_texts == same_choices == [True, False, True]
    assert found.base.perplexity != found.edited.perplexity
    assert found.edited.questions[1].right


def test_where_no_edit_fires_the_figures_are_equal(shared: Shared) -> None:
    opened = shared("pico_llama")
    test = AbilityTest([TEXTS[0], TEXTS[2]], [QUESTIONS[0], QUESTIONS[2]])
    found = ability(opened, base_scores(opened, test), test)
    assert (found.fired_texts, found.fired_questions) == (0, 0)
    assert found.edited == found.base


def test_an_editor_that_changed_the_weights_is_scored_without_routes(
    summaries: Callable[[str], EditSummary],
) -> None:
    opened = open_project(summaries("pico_gpt2").path)
    base = base_scores(opened, TEST)
    with torch.no_grad():
        opened.routed.base.model.transformer.wte.weight.mul_(1.5)
    found = ability(opened, base, TEST, routed=False)
    assert (found.fired_texts, found.fired_questions) == (0, 0)
    assert found.base is base
    assert found.edited.perplexity == pytest.approx(perplexity_by_hand(opened), rel=1e-4)
    assert found.edited.perplexity != pytest.approx(base.perplexity, rel=1e-2)
    assert all(a != b for a, b in zip(base.questions, found.edited.questions, strict=True))


def test_an_encoder_decoder_answers_questions_and_has_no_perplexity(shared: Shared) -> None:
    opened = shared("pico_t5")
    found = ability(opened, base_scores(opened, TEST), TEST)
    assert (found.fired_texts, found.fired_questions) == (0, 1)
    assert (found.base.perplexity, found.edited.perplexity) == (None, None)
    assert found.edited.questions[1].right


def test_a_classifier_is_refused(shared: Shared) -> None:
    with pytest.raises(ModelError, match="a classifier writes no text"):
        base_scores(shared("pico_bert"), TEST)
