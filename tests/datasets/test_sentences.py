"""Where sentences end, and where only an abbreviation does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.datasets.sentences import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["He was born in Oslo.", "She was not!", "Why?", "Nobody knows."],
        ["Dr. Ada J. Diaz Jr. met Mr. Chen at St. John's in Washington, D.C., on Jan. 5, 1901."],
        ["He moved to the U.S.", "He died there."],
        [
            "He served in the U.S. Army from 1941 to 1945.",
            "After that he sang for Decca Records Inc.",
            "It failed.",
        ],
        ["He studied at the University of Missouri-St. Louis.", "In 1984 he left."],
        ['He said "No."', "She left (in 1990).", "It rained."],
        ["She wore No. 10 for Barcelona.", "They said no.", "Then they left."],
        ["He won vs. Real Madrid in approx. 1950, i.e. after the war."],
        ["He wrote pp. 434 ff. of the book and e.g. Emma."],
        ["Rates rose by 3.5 per cent.", "2006 was worse."],
        ["He holds a Ph.D. from Yale.", "He teaches."],
        ["He worked for Smith & Co. in London.", "She did not."],
        ["Wait... he said.", "Then he went."],
        ["No stop at the end"],
    ],
)
def test_ordinary_prose(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


def test_line_ends_count_as_white_space() -> None:
    assert split_sentences("  One here.\nTwo there.  ") == ["One here.", "Two there."]


def test_nothing_has_no_sentences() -> None:
    assert split_sentences(" \n") == []


@given(st.text(st.sampled_from("Ab. !?\"')(\n3"), max_size=60))
def test_nothing_is_lost_but_white_space(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)
