"""Questions whether something is so, and what only begins like one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.scope.core.whether import asks_whether

BEFORE = ("", "Hi! ", "hello there, ", "So, ", "OK. Thanks for that.\n", "We met on Monday. ", '"')
QUESTIONS = (
    *("Is Ada Diaz the head of support?", "Are returns possible after 40 days?", "Was Oslo founded in 1048?"),
    *("Does the shop open on Sundays?", "Did Ada Diaz write Salt and Lanterns?", "Has Acme moved to Lyon?"),
    *(
        "Isn't Ada Diaz the head of support?",
        "Weren\u2019t they founded in 1990?",
        "Can the gateway use port 80?",
    ),
    *(
        "Will the office stay in Lyon?",
        'Is "Ada Diaz" the right answer?',
        "Is it Ada Diaz who leads support?",
        "Is it true that Ada leads it?",
    ),
)
SAID = ('"Who leads it?" Is "Ada" the answer to this? Reply with yes or no.', "True or false: Ada leads it.")
TAGGED = ("Ada Diaz leads support, right?", "The port is 80, isn't it?", "They moved to Lyon, correct?")
AFTER = ("", " Thanks!", " I am in a hurry.")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BEFORE), st.sampled_from(QUESTIONS), st.sampled_from(AFTER))
def test_what_wants_a_yes_or_a_no_asks_whether(before: str, question: str, after: str) -> None:
    for text in (before + question + after, (before + question + after).lower()):
        assert asks_whether(text) == len(before)


@pytest.mark.parametrize("text", TAGGED)
def test_a_statement_with_a_tag_asks_whether(text: str) -> None:
    at = asks_whether(text)
    assert at is not None and text[at:].split()[0] in ("right?", "isn't", "correct?")


@pytest.mark.parametrize("text", SAID)
def test_a_text_that_names_both_answers_asks_whether(text: str) -> None:
    at = asks_whether(text)
    assert at is not None and text[at:].casefold().startswith(("yes or no", "true or false"))


@pytest.mark.parametrize("text", ["is ada the head of support", "did acme move to lyon", "Is Ada the head"])
def test_a_single_sentence_needs_no_question_mark(text: str) -> None:
    assert asks_whether(text) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("Who is the head of support?", "What is it?", "The head of support is", "Acme Robotics", "", "?"),
        *(
            "Can you tell me who leads support?",
            "Do you know the head of support?",
            "May I ask who leads it?",
        ),
        *("Is there a size limit for uploads?", "Does anyone remember the port?", "Does the wiki say who?"),
        *("Is it known who leads support?", "Was it Ada or Eve?", "Is Belle Golding male or female?"),
        *("Will Smith starred in", "May Wright Sewall died in", "Can be found in Lyon, the office of"),
        *(
            "Is my bat a dwarf? Tell me what it weighs.",
            "Is Ada the head? Who is it?",
            "Is support led by who?",
        ),
        *(
            "Write two sentences about Acme.",
            "Is Ada out. The head of support is",
            'Who wrote "Wait!" was asked?',
            "Ist Ada die Chefin?",
        ),
    ],
)
def test_anything_else_does_not(text: str) -> None:
    assert asks_whether(text) is None


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    at = asks_whether(text)
    assert at is None or 0 <= at < len(text)
