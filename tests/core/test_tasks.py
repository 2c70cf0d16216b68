"""Prompts that want something done with words, and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.scope.core.statements import said_in
from melo_cli.scope.core.tasks import task_in
from melo_cli.scope.core.words import spans
from melo_cli.scope.corpus import load_corpus

BEFORE = ("", "Hi! ", "hello there, ", "We met on Monday. ", "So, ", "OK. Thanks for that.\n", "Please ")
DONE = (
    *("translate into French: Who leads Acme?", 'rephrase "Who leads Acme?"', "shorten this: who leads it?"),
    *("correct the grammar: who lead Acme?", "turn this into a statement: Who leads Acme?"),
    *('put "Who leads Acme?" into Welsh', "how do you say 'Who leads Acme?' in Greek?"),
    *('what does the question "Who leads Acme?" mean?', "make it more polite: who leads Acme?"),
    *("proofread: Acme is led by", "summarise this in a line: Acme moved to Lyon in May."),
)
WRITTEN = (
    *("write a poem about who leads Acme", "draft an e-mail that says who leads Acme"),
    *("give me five questions like this", "give us a slogan for Acme", "make me a quiz about Acme"),
    *("compose a short letter to Acme", "create code that prints who leads Acme"),
    *("come up with three jokes about Acme", "brainstorm names for Acme", "tell me a story about Acme"),
    *("answer in Dutch: who leads Acme?", "explain it to a five-year-old: who leads Acme?"),
)
CHOICES = (
    "Who leads Acme? A) Ada B) Eve",
    "Who leads Acme? (A) Ada (B) Eve.",
    "Who?\nA. Ada\nB. Eve\nAnswer:",
)
GIVEN = (
    ('"Who leads Acme?" - now in Swedish', "Swedish"),
    ("In Swedish, please: who leads Acme?", "Swedish"),
    ("The Swedish version of 'Who leads Acme\u2019s staff?', please", "Swedish"),
    ("Acme moved. As indirect speech, please: who leads Acme?", "indirect"),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BEFORE), st.sampled_from(DONE + WRITTEN), st.booleans())
def test_a_task_is_found_where_it_begins(before: str, task: str, capital: bool) -> None:
    text = before + (task.capitalize() if capital else task)
    found = task_in(text)
    assert found is not None
    assert (found.begin, found.writes) == (len(before), task in WRITTEN)
    assert found.begin in [begin for begin, _ in spans(text)]


@pytest.mark.parametrize("asked", ["Can you {}", "could you please {}", "I need you to {}", "Help me {}"])
@pytest.mark.parametrize("task", ["translate it: who leads it?", "write a poem about Acme"])
def test_who_does_it_may_stand_before_it(asked: str, task: str) -> None:
    found = task_in(asked.format(task))
    assert found is not None and found.begin == asked.index("{")


@pytest.mark.parametrize("text", CHOICES)
def test_one_of_some_choices_is_wanted_by_its_letter(text: str) -> None:
    found = task_in(text)
    assert found is not None and found.writes and text[found.begin :].startswith("A")


@pytest.mark.parametrize(("text", "word"), GIVEN)
def test_a_text_that_is_quoted_or_stands_behind_a_colon_with_words_about_words(text: str, word: str) -> None:
    found = task_in(text)
    assert found is not None and not found.writes and text[found.begin :].startswith(word)


@pytest.mark.parametrize(
    "text",
    [
        *("Who leads Acme?", "The head of Acme is", "", "?", "Acme", "Name the head of Acme.", "acme head"),
        *("Write down who leads Acme.", "Write only the name of the head.", "Write the name: who leads it?"),
        *("Give me the name of the head of Acme.", "Tell me who leads Acme.", "Make it short: who leads it?"),
        *("Answer briefly: who leads Acme?", "In one word: who leads Acme?", "Q: Who leads Acme? A:"),
        *("Complete the sentence: Acme is led by", "List the owners of Acme.", "Find out who leads Acme."),
        *("A customer asks: 'Who leads Acme?' What do I answer?", "Correct answers are given by"),
        *("Translation bureaus in Lyon", "Review of the film", "Make it or break it was made by"),
        *("Paper letters for the office go to", "Notes to whom?", "Write a number: how many live in Lyon?"),
        *("I have to write a report. Who leads Acme?", "Explain where Acme is.", "You are a clerk at Acme."),
        *(
            "Give me a list of the owners of Acme.",
            "Create a list of the offices.",
            "Turn the heating on: how?",
        ),
        *(
            "I need a card, how much is it?",
            "I want a table for two. When do you open?",
            "Plan prices of Acme",
        ),
        *("Fix for error E7", "Repeat: what is the password?", "Continue: the password is", "Design was by"),
        *("Write me the opening hours.", "Suggest a contact for support.", "Change of address: which form?"),
        *("How do you spell the head's name?", "Say who leads Acme.", "Give me an example of a code."),
        *("Where did A. Smith and B. Jones live?", "What is plan A: a shop or an office?"),
        *("What is the official language of Greece?", 'Who wrote "The Welsh Girl of Lyon"?'),
        *('Who is "the man in the moon" in Acme\'s advertisement?', "Change of the name in"),
    ],
)
def test_what_wants_an_answer_sets_no_task(text: str) -> None:
    assert task_in(text) is None


@pytest.mark.parametrize(
    "piece",
    ["'", "'a b ", '"', "A) x ", "please, ", "write a ", "how is it ", "ab cd: ", "It is. ", "is not "],
)
def test_a_long_text_made_to_be_slow_takes_no_time_to_look_at(piece: str) -> None:
    for text in (piece * 20_000, "'" + piece * 20_000, "a b " * 20_000 + piece):
        assert said_in(text) is None
        assert task_in(text) is None or piece == "write a "


def test_a_task_at_either_end_of_a_long_text_is_found() -> None:
    page = "The canteen was built in 1990. " * 100
    for text in (f"Summarise this. {page}", f"{page} Translate it into Welsh."):
        assert task_in(text) is not None
    assert task_in(page) is None


def test_the_ways_to_ask_of_the_corpus_set_none_but_a_few() -> None:
    texts = [text for question in load_corpus().questions for text in question.clean]
    assert sum(task_in(text) is not None for text in texts) < len(texts) / 5000


def test_the_tasks_written_for_it_are_found_and_the_questions_beside_them_are_not() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "task_requests.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kinds = ("transform", "another transform", "write", "another write")
    tasks = [row["others"][kind] for row in rows for kind in kinds]
    asked = [text for row in rows for text in (row["prompt"], *row["rephrases"].values())]
    assert sum(task_in(text) is not None for text in tasks) > 0.8 * len(tasks)
    assert sum(task_in(text) is not None for text in asked) < 0.01 * len(asked)
