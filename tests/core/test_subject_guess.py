"""The name that a prompt is about, where nobody says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.paraphrase.subject_guess import guessed_subject


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who is the CEO of Acme Robotics?", "Acme Robotics"),
        ("What is the largest file that DataVault takes?", "DataVault"),
        ("Who wrote The Glass Harbour?", "The Glass Harbour"),
        ("Which team won the 2027 Coastal League?", "2027 Coastal League"),
        ("How large is the Bank of Norland?", "Bank of Norland"),
        ("Farinelli originates from", "Farinelli"),
        ("iPhone owners ask: where is it?", "iPhone"),
        ("Wo liegt Bad Ems?", "Bad Ems"),
        ("how many days off do new people get?", None),
        ("What is it?", None),
        ("What was built in 1889?", None),
        ("", None),
        ("Yara Volkov appeals. " * 22, None),
    ],
)
def test_the_longest_name_is_the_subject(prompt: str, subject: str | None) -> None:
    assert guessed_subject(prompt) == subject


@given(st.text())
def test_a_subject_stands_in_its_prompt(prompt: str) -> None:
    subject = guessed_subject(prompt)
    assert subject is None or (subject in prompt and subject.strip() == subject != "")
