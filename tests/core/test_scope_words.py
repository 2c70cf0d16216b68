"""What scope knows of a text before any model reads it: its words, how rare they are, what it may ask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import (
    ANSWER_SORTS,
    answer_sorts,
    asked_views,
    exceptions,
    folded,
    spans,
    spelling,
    words_of,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Who built it, and why?", ["Who", "built", "it", "and", "why"]),
        ("model A1's price: 20%", ["model", "A", "1", "s", "price", "20", "%"]),
        ("is 3 - 2 < x-ray?", ["is", "3", "-", "2", "<", "x", "ray"]),
        ("Où est Köln?", ["Où", "est", "Köln"]),
        ("東京はどこ", ["東", "京", "は", "ど", "こ"]),
        ("?!", ["?!"]),
    ],
)
def test_words_are_letters_digits_signs_or_one_character_of_a_script_without_spaces(
    text: str, words: list[str]
) -> None:
    assert words_of(text) == words


@given(TEXTS)
def test_every_text_has_a_word_and_words_stand_in_order(text: str) -> None:
    word_spans = spans(text)
    assert word_spans
    assert all(0 <= begin <= end <= len(text) for begin, end in word_spans)
    assert [begin for begin, _ in word_spans] == sorted(begin for begin, _ in word_spans)


def test_spelling_is_the_same_on_every_machine_and_separates_like_words_from_others() -> None:
    known = [-0.19833, 0.10519, 0.01901]
    np.testing.assert_allclose(spelling("Cologne")[:3], known, atol=1e-5)
    assert np.array_equal(spelling("cologne"), spelling("COLOGNE"))
    like, other = spelling("colognes") @ spelling("cologne"), spelling("river") @ spelling("cologne")
    assert 0.99 > like > 0.3 > other


@given(TEXTS.filter(bool), TEXTS.filter(bool))
def test_only_the_same_word_is_spelt_alike(one: str, other: str) -> None:
    same = one.casefold() == other.casefold()
    assert bool(spelling(one) @ spelling(other) > 0.995) == same


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("Who built it?", []),
        ("Hi. Who built it?", ["Who built it?"]),
        ("Who built it? Thanks a lot!", ["Thanks a lot!", "Who built it?"]),
        ("I was there.\nWho built it", ["Who built it"]),
        ("A? B? C? D.", ["D.", "B?", "C?"]),
        ("这是谁\uff1f谢谢。", []),
    ],
)
def test_a_message_may_ask_with_its_last_sentence_or_a_question_before_it(
    text: str, views: list[str]
) -> None:
    assert asked_views(text) == [text, *views]


def test_what_a_question_wants_is_read_off_its_words() -> None:
    def sorts(text: str) -> set[int]:
        return set(answer_sorts(words_of(text))) - {0}

    who, when, where = sorts("Who built it?"), sorts("When was it built?"), sorts("Where is it?")
    assert [len(each) for each in (who, when, where)] == [1, 1, 1]
    assert len(who | when | where) == 3
    assert sorts("In which year was it built?") == when
    assert sorts("What city is it in?") == where
    assert sorts("The year of the city is") == set(), "it names them, and does not ask for them"
    assert max(who | when | where) <= ANSWER_SORTS


@pytest.mark.parametrize(
    "text",
    [
        "The country of citizenship of Ada Diaz, which is not Peru, is",
        "Who, besides Ada Diaz, leads it?",
        "which currency other than the euro is in use there",
        "Apart from Oslo, what is the capital?",
        "Who leads it, except for Ada?",
        "The mayor, who isn't Ada, is",
    ],
)
def test_a_question_for_another_answer_than_one_it_names_is_seen(text: str) -> None:
    assert sum(exceptions(words_of(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The country of citizenship of Ada Diaz is",
        "Who is not insured?",
        "Which is not in Norway?",
        "Apart from that, what is the capital?",
        "What is the exception for staff?",
        "Is it not Oslo?",
        "What else does it do besides?",
        "",
    ],
)
def test_a_question_that_only_has_such_words_asks_for_no_other_answer(text: str) -> None:
    assert not any(exceptions(words_of(text)))


def test_a_word_that_few_kinds_of_questions_use_is_rare_and_an_unknown_one_reads_like_a_name() -> None:
    groups = [
        ["Who built the bridge?", "the bridge, who built it?"],
        ["I ask who wrote it"],
        ["Who is the heir?"],
    ]
    vocabulary = Vocabulary.of(groups)
    assert vocabulary.rarity("WHO") == 0.0
    assert 0 < vocabulary.rarity("the") < vocabulary.rarity("bridge") < vocabulary.rarity("Cologne") == 1.0
    words = words_of("Who built the Bridge of Cologne in 1889, I wrote")
    named = [word for word, is_name in zip(words, vocabulary.name_like(words), strict=True) if is_name]
    assert named == ["Bridge", "of", "Cologne", "in", "1889"]


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("José", "jose"),
        ("Stöcklin", "STOCKLIN"),
        ("Łódź", "Lodz"),
        ("Bagnères", "bagneres"),
        ("Smørrebrød", "smorrebrod"),
        ("Ærø", "aero"),
        ("Nguyễn", "nguyen"),
        ("Ñandú", "nandu"),
    ],
)
def test_a_name_is_one_word_with_and_without_its_accents(written: str, typed: str) -> None:
    assert folded(written) == folded(typed)


@pytest.mark.parametrize("word", ["が", "ガ", "맦", "हिन्दी", "กำ"])
def test_marks_of_scripts_that_have_no_accents_stay(word: str) -> None:
    assert folded(word) == word


@given(TEXTS)
def test_what_is_without_accents_stays_so(text: str) -> None:
    assert folded(folded(text)) == folded(text)
