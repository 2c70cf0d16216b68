"""When two answers are the same: exactly, and as the field's own tables count."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = {"a", "an", "the"}
_END = re.compile(r"\.(?=\s|$)|\n")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


def normalized(answer: str) -> list[str]:
    """An answer's words: up to the first full stop or line end, in lower case, without punctuation and
    articles.

    So LocFT's tables count (arXiv 2509.22072): greedy generation, stopped there, normalised exact match. The
    point within a number is no full stop.
    """
    return words(_END.split(answer.strip(), maxsplit=1)[0])


def words(text: str) -> list[str]:
    """The words of all of a text, in lower case, without punctuation and articles."""
    return [word for word in text.casefold().translate(_PUNCTUATION).split() if word not in _ARTICLES]


def equals_one(answer: str, truths: Sequence[str]) -> bool:
    """Whether an answer is one of the truths, normalised."""
    return any(normalized(answer) == normalized(truth) for truth in truths)


def contains_one(answer: str, truths: Sequence[str]) -> bool:
    """Whether an answer has the words of one of the truths, one behind the other."""
    said = words(answer)
    return any(_holds(said, words(truth)) for truth in truths)


def begins_with(answer: str, truths: Sequence[str]) -> bool:
    """Whether an answer's first words are those of one of the truths."""
    said = words(answer)
    return any(said[: len(wanted)] == wanted for truth in truths if (wanted := words(truth)))


def _holds(said: Sequence[str], wanted: Sequence[str]) -> bool:
    return bool(wanted) and any(
        said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1)
    )
