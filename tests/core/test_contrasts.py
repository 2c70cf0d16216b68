"""Words that exclude each other, of which a query has one and an edit another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.scope.core.contrasts import REASONS, contrast, listed, word_sets
from melo_cli.scope.core.words import SPELLING, folded, spelling, words_of

SETS = word_sets()
AROUND = ("the", "head", "of", "opening", "time", "zebra")


@st.composite
def two_parts(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Two parts of a set."""
    parts = draw(st.sampled_from(SETS))
    one, other = draw(st.lists(st.sampled_from(range(len(parts))), min_size=2, max_size=2, unique=True))
    return list(parts[one]), list(parts[other])


@given(two_parts(), st.data())
def test_words_of_two_parts_exclude_each_other(
    parts: tuple[list[str], list[str]], data: st.DataObject
) -> None:
    one, other = (data.draw(st.sampled_from(part)) for part in parts)
    around = data.draw(st.lists(st.sampled_from(AROUND)))
    shown = data.draw(st.sampled_from([str.lower, str.upper, str.capitalize]))
    assert contrast([*around, shown(one)], [other, *around]) == (shown(one), other)
    assert contrast([*around, one, other], [other]) is None, "who names both means this one"
    assert contrast([data.draw(st.sampled_from(parts[1]))], [other]) is None, "the same in another word"
    assert contrast(around, [other]) is None and contrast([one], around) is None


def test_each_word_is_one_word_and_stands_once_in_a_set() -> None:
    for parts in SETS:
        words = [word for part in parts for word in part]
        assert len(parts) > 1 and len(set(words)) == len(words)
        assert all(words_of(word) == [word] == [folded(word)] for word in words)


def test_the_words_are_known_by_the_spellings_that_are_stored() -> None:
    words = [word for parts in SETS for part in parts for word in part]
    stored = np.stack([spelling(word, SPELLING) for word in words]).astype(np.float16).astype(np.float32)
    assert set(words) <= set(listed(stored)) <= set(words) | REASONS
    others = np.stack([spelling(word, SPELLING) for word in (*AROUND, "mondayz", "sale", "supports")])
    assert listed(others) == []
