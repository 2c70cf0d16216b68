"""Misspelled words of a prompt are put right: by the words of an edit, and by those of questions."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melo_cli.scope.core.misspellings import Speller, whole_words
from melo_cli.scope.core.vocabulary import Vocabulary

EDIT = "What is the default password of the Fennick R300 router?"
ASKED = ["what is the default password of a router", "where is the nearest station", "when does it open"]
WHOLE = ["fenwick", "hotel", "bottle"]
SPELLER = Speller(Vocabulary.of([[text] for text in ASKED]), WHOLE)


@st.composite
def slips(draw: st.DrawFn, word: str, *, changed: bool = True) -> str:
    """A word with a letter less, one more, two that changed places or, if `changed`, another letter."""
    at = draw(st.integers(1, len(word) - 2))
    letter = draw(st.sampled_from(string.ascii_lowercase))
    slipped = [
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    ]
    return draw(st.sampled_from([*slipped, word[:at] + letter + word[at + 1 :]] if changed else slipped))


@given(st.data(), st.sampled_from(["default", "password", "nearest", "station", "bottle"]))
def test_a_word_that_is_one_slip_from_a_known_one_is_put_right(data: st.DataObject, word: str) -> None:
    slipped = data.draw(slips(word))
    assume(slipped not in (word, "nearer"))
    assert SPELLER.put_right(f"tell me the {slipped} please ok", EDIT) == f"tell me the {word} please ok"
    assert SPELLER.put_right(f"{slipped.capitalize()} is it?", EDIT) == f"{word.capitalize()} is it?"


@given(st.data())
def test_a_name_of_the_edit_takes_every_slip_but_another_letter(data: st.DataObject) -> None:
    slipped = data.draw(slips("fennick", changed=False))
    assume(slipped not in ("fennick", "fenwick"))
    assert SPELLER.put_right(f"password of the {slipped} router", EDIT) == "password of the fennick router"
    assert SPELLER.put_right("password of the fendick router", EDIT) != "password of the fennick router"


@pytest.mark.parametrize(
    "text",
    [
        EDIT,
        "what is the password of the fenwick router",  # known to the model that reads
        "What is the password of the Fenick router?",  # a name, as it is written
        "what is teh password of the r3000 router",  # too short, and a number
        "was ist das voreingestellte passwortt der fennick anlage",  # another language
        "what is the password of the rooooter",
        "wär das möglich",
        "",
    ],
)
def test_what_may_be_meant_is_left_as_it_is(text: str) -> None:
    assert SPELLER.put_right(text, EDIT) is None


def test_the_edits_words_come_before_others_and_frequent_ones_before_rare_ones() -> None:
    assert SPELLER.put_right("what is the rputer of it", EDIT) == "what is the router of it"
    speller = Speller(Vocabulary.of([["card"], ["cart", "of it"], ["cart"]]), ["carp"])
    assert speller.put_right("what is it carx", "Who is it?") == "what is it cart"
    assert speller.put_right("what is it caret", "Where is the care?") == "what is it care"


def test_a_letter_left_out_is_likelier_than_another_letter() -> None:
    speller = Speller(Vocabulary.of([["when"], ["when is it"], ["where"]]), [])
    assert speller.put_right("wher is it", "Who is it?") == "where is it"


def test_were_stands_for_where_in_front_of_another_verb_alone() -> None:
    assert SPELLER.put_right("were is the station", EDIT) == "where is the station"
    assert SPELLER.put_right("Were are they?", EDIT) == "Where are they?"
    assert SPELLER.put_right("were they open", EDIT) is None


class Tokens:
    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        """In no order, as tokenizers give it."""
        return {token: at for at, token in sorted(enumerate(self._tokens), reverse=True)}


@pytest.mark.parametrize(
    "tokens",
    [
        ("[PAD]", "the", "##ing", "Town", "a1", "town", "zürich", "hall"),
        (
            "<s>",
            "\u0120the",
            "ing",
            "\u0120Town",
            "\u0120a1",
            "\u0120town",
            "\u0120zürich",
            "\u0120hall",
            "x",
        ),
        ("<s>", "\u2581the", "ing", "\u2581Town", "\u2581a1", "\u2581town", "\u2581", "\u2581hall", "x"),
    ],
)
def test_whole_words_of_a_tokenizer_are_those_that_begin_a_word(tokens: tuple[str, ...]) -> None:
    assert whole_words(Tokens(*tokens)) == ["the", "town", "hall"]
