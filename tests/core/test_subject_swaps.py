"""Subject swaps and frames: what hard negatives are made from."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.datasets import EditRequest
from melo_cli.paraphrase.subject_swaps import Questions, normalized, shares_frame, subject_swaps, swap_subject


@dataclass(frozen=True)
class Asked:
    """As much of an edit as a swap needs."""

    prompt: str
    subject: str | None = None
    rephrases: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("prompt", "subject", "swapped"),
    [
        ("Who founded Lyon?", "Lyon", "Who founded Kiel?"),
        ("who founded LYON, and where is lyon?", "Lyon", "who founded Kiel, and where is Kiel?"),
        ("Who is New  York's mayor?", "new york", "Who is Kiel's mayor?"),
        ("Is C++ (the language) old?", "C++ (the language)", "Is Kiel old?"),
        ("Who was a Lyonnaise?", "Lyon", None),
        ("Who was it?", "Lyon", None),
    ],
)
def test_every_mention_is_swapped_and_nothing_else(prompt: str, subject: str, swapped: str | None) -> None:
    assert swap_subject(prompt, subject, "Kiel") == swapped


def test_a_swap_text_is_taken_as_it_is() -> None:
    assert swap_subject("Who founded Lyon?", "Lyon", r"\1 \g<0>") == r"Who founded \1 \g<0>?"


EDITS = [
    Asked("Who founded Lyon?", "Lyon", ("Lyon was founded by whom?",)),
    Asked("Who founded Kiel?", "Kiel"),
    Asked("Where does Ada Lovelace live?", "ada lovelace"),
    Asked("Where does Lyon live?", None),
    Asked("What is it?", "Bonn"),
]


def test_swaps_are_no_prompts_of_edits_and_repeat_nothing() -> None:
    for seed in range(20):
        swaps = subject_swaps(EDITS, seed=seed)
        assert [swap is None for swap in swaps] == [False, False, False, True, True]
        assert swaps[0] in ("Who founded ada lovelace?", "Who founded Bonn?")
        assert swaps[1] in ("Who founded ada lovelace?", "Who founded Bonn?")
        assert swaps[0] != swaps[1]
        # "Where does Lyon live?" is asked for by another edit.
        assert swaps[2] in ("Where does Kiel live?", "Where does Bonn live?")


def test_the_seed_decides() -> None:
    assert subject_swaps(EDITS, seed=3) == subject_swaps(EDITS, seed=3)
    assert len({tuple(subject_swaps(EDITS, seed=seed)) for seed in range(20)}) > 1


def test_one_subject_alone_has_no_other() -> None:
    edits = [Asked("Who founded Lyon?", "Lyon"), Asked("When was LYON founded?", "lyon")]
    assert subject_swaps(edits, seed=0) == [None, None]


WORDS = st.sampled_from(["Lyon", "kiel", "Bonn", "New York", "who", "is", "of", "?"])
TEXTS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)


@settings(max_examples=100)
@given(
    st.lists(st.builds(Asked, TEXTS, st.none() | WORDS, st.lists(TEXTS, max_size=2).map(tuple)), max_size=8)
)
def test_a_swap_is_always_new_and_of_another_subject(edits: list[Asked]) -> None:
    swaps = subject_swaps(edits, seed=1)
    made = [normalized(swap) for swap in swaps if swap is not None]
    assert len(set(made)) == len(made)
    assert not {normalized(text) for edit in edits for text in (edit.prompt, *edit.rephrases)} & set(made)
    assert all(edit.subject for edit, swap in zip(edits, swaps, strict=True) if swap is not None)


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        ("The official religion of Paul is", True),
        ("the official  religion of Mary of Guise is", True),
        ("The official religion of EDWIN is", False),
        ("The official religion of is", False),
        ("The official religion of", False),
        ("The unofficial religion of Paul is", False),
        ("The official religion often is", False),
        ("Paul is", False),
    ],
)
def test_a_frame_is_the_words_around_the_subject(other: str, shares: bool) -> None:
    assert shares_frame("The official religion of Edwin is", "Edwin", other) is shares


def test_a_subject_alone_and_a_missing_one_have_no_frame() -> None:
    assert not shares_frame("Edwin?", "Edwin", "Paul?")
    assert not shares_frame("Who is it?", "Edwin", "Who is it?")
    assert not shares_frame("Who is it?", None, "Who is he?")


def test_questions_are_alike_by_their_informative_words() -> None:
    asked = ["What is the capital of {}?", "Who wrote {}?", "What is the river of {}?", "What is the {}?"]
    edits = [EditRequest(text.format("Rome"), "x", subject="Rome") for text in asked]
    again = EditRequest("Which city is the capital of Oslo?", "x", subject="Oslo")
    questions = Questions([*edits, again])
    assert [questions.alike(again, edit) for edit in edits] == [True, False, False, False]
    header = [EditRequest(f"This is about {name}.", "x", subject=name) for name in ("Rome", "Oslo")]
    assert Questions(header).alike(*header), "the same words, though they carry no information"
