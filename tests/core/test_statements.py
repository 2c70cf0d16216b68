"""Texts that say something and ask for nothing, and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.scope.core.statements import said_in
from melo_cli.scope.core.words import spans
from melo_cli.scope.corpus import load_corpus

BEFORE = ("", "Thanks! ", "ok, ", "No, ", "I was there. ", "Hello all, ", "We met on Monday.\n")
SAID = (
    ("it's far too late for us.", "s far"),
    ("we\u2019ve moved to Lyon!", "ve"),
    ("the canteen opens at noon.", "opens"),
    ("the guest password does not work.", "does"),
    ("that is much too late for us.", "is"),
    ("they have moved to Lyon!", "have"),
    ("I think the canteen opens too late.", "think"),
    ("the shop in Lyon closed for good.", "closed"),
)
DENIED = (("the guest password doesn't work", "doesn't"), ("Ada is not the head of support", "is"))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(BEFORE), st.sampled_from(SAID[:-2] + SAID[-1:] + DENIED))
def test_what_asks_for_nothing_is_a_statement_from_its_verb_on(before: str, said: tuple[str, str]) -> None:
    text, verb = said
    for whole in (before + text, before + text.capitalize()):
        at = said_in(whole)
        assert at == len(before) + text.index(verb)
        assert at in [begin for begin, _ in spans(whole)]


def test_what_is_only_thought_is_a_statement_too() -> None:
    text, _ = SAID[-2]
    at = said_in(text)
    assert at is not None
    assert text[at:].split()[0] in ("think", "opens")


@pytest.mark.parametrize(
    "text",
    [
        *("When does the canteen open?", "The canteen opens at", "The guest password is", "", ".", "Acme."),
        *("I forgot the guest password.", "I need the guest password.", "Tell me the guest password."),
        *(
            "The head of Acme.",
            "Name the head of Acme.",
            "I'm not sure who leads Acme.",
            "I'd like to know it.",
        ),
        *("The canteen does not open before", "Ada is not the head of", "The guest password does not work?"),
        *("The canteen opens at ... .", "Please, the guest password.", "The password is unclear to me."),
        *("Der Gast sucht das Kennwort.", "Dogs of this kind are not", "The office that is in Lyon has"),
    ],
)
def test_what_asks_for_something_is_no_statement(text: str) -> None:
    assert said_in(text) is None


def test_the_ways_to_ask_of_the_corpus_are_no_statements() -> None:
    texts = [text for question in load_corpus().questions for text in question.clean]
    assert sum(said_in(text) is not None for text in texts) < len(texts) / 5000


def test_the_statements_written_for_it_are_found_and_the_questions_beside_them_are_not() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "statements.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = [text for row in rows for text in row["others"].values()]
    asked = [text for row in rows for text in (row["prompt"], *row["rephrases"].values())]
    assert sum(said_in(text) is not None for text in said) > 0.5 * len(said)
    assert not [text for text in asked if said_in(text) is not None]
