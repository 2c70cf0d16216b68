"""Open requests: what asks for a text about a subject, and what asks for something in particular."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.scope.core.open_requests import requested_subject, subject_key

BEFORE = ("", "please ", "Hi! ", "Hello, can you ", "Could you please ", "hey there, would you ")
OPENINGS = (
    *("Tell me about", "tell me something about", "Tell me more about", "Tell me everything you know about"),
    *("Write two sentences about", "write me a short paragraph on", "Give me a brief summary of"),
    *("Compose an article about", "Give us an overview of", "Write 3 lines about", "Write something about"),
    *("Describe", "Introduce", "Introduce me to", "Summarise", "Summarize what you know about"),
    *("What do you know about", "What can you tell me about", "WHAT CAN YOU SAY ABOUT"),
)
AFTER = (
    *("", ".", "?", " please.", ", please!", " for me", " in two sentences.", " briefly, please", " thanks"),
    *(
        " for our company newsletter",
        " for a blog post.",
        ". Keep it short.",
        " in one short paragraph for us",
    ),
)
SUBJECTS = ("Acme Robotics", "the Lyon office", '"The Glass Harbour"', "Crème de la Crème", "St. Ives", "C++")


@settings(max_examples=300, deadline=None)
@given(*(st.sampled_from(each) for each in (BEFORE, OPENINGS, SUBJECTS, AFTER)))
def test_text_in_every_form_is_an_open_request(before: str, opening: str, subject: str, after: str) -> None:
    for prompt in (f"{before}{opening} {subject}{after}", f"  {before}{opening}\n{subject}{after} ".upper()):
        assert requested_subject(prompt) == subject_key(subject)


@pytest.mark.parametrize(
    "prompt",
    [
        *(
            "Who is Acme Robotics?",
            "What is Acme Robotics?",
            "Where is Acme Robotics based?",
            "Acme Robotics",
        ),
        *("Tell me the name of Acme Robotics' chief executive.", "Give me the address of Acme Robotics."),
        *(
            "Tell me a joke about Acme Robotics.",
            "Write a poem about Acme Robotics.",
            "Write to Acme Robotics.",
        ),
        *("What do you know?", "Describe.", "Tell me about", "Write two sentences.", "Hi! Please.", ""),
        *("I work on Acme Robotics. Tell me about it.", "Do not tell me about Acme Robotics."),
        "Erzähl mir etwas über Acme Robotics.",
    ],
)
def test_other_prompts_are_no_open_requests(prompt: str) -> None:
    assert requested_subject(prompt) is None


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(("who", "what", "when", "where", "why", "how", "which", "is", "does", "the", "our")),
    st.text(max_size=60),
    st.sampled_from(SUBJECTS),
)
def test_no_question_is_an_open_request(word: str, rest: str, subject: str) -> None:
    for prompt in (f"{word} {subject} {rest}", f"{word} is known of {rest} {subject}?"):
        assert requested_subject(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Tell me about the CEO of Acme Robotics.", "the CEO of Acme Robotics"),
        ("Describe Acme Robotics in 1990.", "Acme Robotics in 1990"),
        ("Write a text about Acme Robotics to my mother.", "Acme Robotics to my mother"),
    ],
)
def test_the_subject_is_all_that_is_asked_about(prompt: str, subject: str) -> None:
    assert requested_subject(prompt) == subject_key(subject) != subject_key("Acme Robotics")


def test_subjects_are_one_in_whatever_case_and_punctuation() -> None:
    written = ("The Glass Harbour", "glass  harbour", "\u201cThe Glass Harbour\u201d.", " the glass harbour ")
    assert {subject_key(each) for each in written} == {"glass harbour"}
    assert subject_key("Theodore") == "theodore"


@pytest.mark.parametrize("part", ["please ", "Tell me about ", "for me ", "in two sentences ", ", . ! "])
def test_a_long_prompt_is_looked_at_no_longer_than_a_short_one(part: str) -> None:
    prompt = "Tell me about " + part * 20000
    started = time.process_time()
    assert requested_subject(prompt) is None
    assert time.process_time() - started < 1.0
