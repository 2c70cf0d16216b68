"""A shortened name is written in full where it can only mean the subject of an edit."""

from __future__ import annotations

import numpy as np
import pytest

from melo_cli.scope.core.features import SUBJECT_FLAG
from melo_cli.scope.core.readings import looked_at
from melo_cli.scope.core.second_reading import SecondReading
from melo_cli.scope.core.short_names import ShortNames, Subject
from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import folded, words_of

ASKED = [
    "when was it opened",
    "what is the port of it",
    "who leads the museum these days",
    "what does it cost",
]
WHOLE = [
    "museum",
    "clock",
    "tide",
    "air",
    "smith",
    "harbour",
    "client",
    "server",
    "city",
    "open",
    "web",
    "trio",
]
VOCABULARY = Vocabulary.of([[text] for text in ASKED])
NAMES = ShortNames(VOCABULARY, frozenset(WHOLE))


def vectors(prompt: str, about: str) -> np.ndarray:
    """Token vectors that only say which words are of the subject."""
    words = {folded(word) for word in words_of(about)}
    tokens = np.zeros((len(looked_at(prompt)), 4), np.float16)
    for at, (begin, end) in enumerate(looked_at(prompt)):
        tokens[at, SUBJECT_FLAG] = folded(prompt[begin:end]) in words
    return tokens


def subject(about: str, prompt: str = "When was {} opened?") -> Subject:
    prompt = prompt.format(about)
    found = Subject.of(prompt, vectors(prompt, about))
    assert found is not None
    return found


MUSEUM = subject("Brennick Tide Clock Museum")
PERSON = subject("Teodrik Vasmaling")
SWITCH = subject("Corvane TX-480", "What is the web port of the {}?")
AIRLINE = subject("Sorvika Air")


@pytest.mark.parametrize(
    ("text", "about", "full"),
    [
        ("When was Vasmaling opened?", PERSON, "When was Teodrik Vasmaling opened?"),
        ("Vasmaling's trio is", PERSON, "Teodrik Vasmaling's trio is"),
        ("when was vasmaling opened", PERSON, "when was Teodrik Vasmaling opened"),
        ("Does Sorvika open?", AIRLINE, "Does Sorvika Air open?"),
        ("what is the port of the tx-480", SWITCH, "what is the port of the Corvane TX-480"),
        ("The web port of the TX 480 is", SWITCH, "The web port of the Corvane TX-480 is"),
        ("who leads the tide clock museum", MUSEUM, "who leads the Brennick Tide Clock Museum"),
        ("brennick museum who leads it", MUSEUM, "Brennick Tide Clock Museum who leads it"),
        ("What does Bréñnick cost?", MUSEUM, "What does Brennick Tide Clock Museum cost?"),
    ],
)
def test_what_can_only_mean_the_subject_is_written_in_full(text: str, about: Subject, full: str) -> None:
    vocabulary = Vocabulary.of([[*ASKED, "does it"]])
    assert ShortNames(vocabulary, frozenset(WHOLE)).in_full(text, [about]) == full


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("When was Teodrik Vasmaling opened?", PERSON),  # in full already
        ("When was it opened?", PERSON),
        ("When was the museum opened?", MUSEUM),  # any museum
        ("When was the clock museum opened?", MUSEUM),
        ("When was Karl Vasmaling opened?", PERSON),
        ("Karl Vasmaling was opened", PERSON),
        ("When was Vasmaling Harbour opened?", PERSON),
        ("when was vasmaling grelt opened", PERSON),  # a word that nobody knows may be a name
        ("When was Vasmaling of Oslo opened?", PERSON),
        ("When was Vasmaling 2 opened?", PERSON),
        ("What is the port of the TX-490?", SWITCH),
        ("Brennick City Museum was opened", MUSEUM),
        ("Who leads Brennick and the museum?", MUSEUM),  # two runs
        ("When was the Museum Clock Tide opened?", MUSEUM),  # in another order
        ("When was the Vellix opened?", subject("Vellix client")),  # what is left out is no name
        ("when was smith opened", subject("Ada Smith")),  # a word of the language
    ],
)
def test_what_may_mean_something_else_is_left_as_it_is(text: str, about: Subject) -> None:
    assert NAMES.in_full(text, [about]) is None


def test_a_name_of_two_subjects_means_neither() -> None:
    cousin = subject("Ada Vasmaling")
    text = "When was Vasmaling opened?"
    assert NAMES.in_full(text, [PERSON, PERSON]) == "When was Teodrik Vasmaling opened?"
    assert NAMES.in_full(text, [PERSON, AIRLINE]) == "When was Teodrik Vasmaling opened?"
    assert NAMES.in_full(text, [PERSON, cousin]) is None


def test_names_that_an_edit_has_beside_its_subject_may_stand_there() -> None:
    coded = subject("Sorvika Air", "What is the IATA code of {}?")
    text = "The IATA port of Sorvika is"
    assert NAMES.in_full(text, [AIRLINE]) is None
    assert NAMES.in_full(text, [AIRLINE, coded]) == "The IATA port of Sorvika Air is"


@pytest.mark.parametrize(
    ("prompt", "about", "found"),
    [
        ("What is the seat of the Bank of Oslo?", "Bank of Oslo", "Bank of Oslo"),
        ("What is the port of the TX-480?", "the TX-480", "TX-480"),
        ("What is it of?", "of", None),
        ("When?", "Ada", None),
    ],
)
def test_the_subject_is_the_longest_run_of_its_words(prompt: str, about: str, found: str | None) -> None:
    made = Subject.of(prompt, vectors(prompt, about))
    assert (made.text if made else None) == found


def test_slips_go_before_names_are_written_in_full() -> None:
    second = SecondReading(VOCABULARY, WHOLE)
    prompt = "When was Sorvika Air opened?"
    near = [(prompt, vectors(prompt, "Sorvika Air"))]
    assert second.of("when was sorvvikkka opened", near) is None, "two slips in one word"
    assert second.of("when was sorvikka opend", near) == "when was Sorvika Air opened"
    assert second.of("when was sorvika opened", near) == "when was Sorvika Air opened"
    assert second.of(prompt, near) is None
