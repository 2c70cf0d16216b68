"""Pieces of an answer are together what the whole decodes to, up to the first stop text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.serving.engines.answer_text import AnswerText

WORDS = ("do ", "n't", " stop", " st", "op ", ".")


def decode(ids: Sequence[int]) -> str:
    """As tokenizers do that clean up spaces: a token may change the text before it."""
    return "".join(WORDS[token] for token in ids).replace(" n't", "n't").replace(" .", ".")


@given(ids=st.lists(st.integers(0, len(WORDS) - 1), max_size=12), piecewise=st.booleans())
@pytest.mark.parametrize("stops", [(), (" stop",), ("stop.", "don't")])
def test_pieces_are_the_whole(ids: list[int], piecewise: bool, stops: tuple[str, ...]) -> None:
    text = AnswerText(decode, stops, piecewise=piecewise)
    pieces = []
    read = []
    for token in ids:
        read.append(token)
        pieces.append(text.add(token))
        if text.stopped:
            break
    pieces.append(text.end())
    whole = decode(read)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    assert "".join(pieces) == whole[: min(ends, default=len(whole))]
    assert text.stopped == bool(ends)
