"""What speaks against a candidate, in words: why a prompt did not reach the edit nearest to it."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import ANSWER_NAMES, answer_sorts, spelling, words_of

_ALIKE = 0.8  # cosine of two spellings that count as one word, a slip of the fingers or an ending apart


def against(prompt: str, edit_prompt: str, subject: str | None, vocabulary: Vocabulary) -> str:
    """What tells a prompt from an edit's, first of all what it is about, then what is asked.

    Args:
        subject: of the edit; without it, the names in its prompt stand for that.
    """
    asked, edited = words_of(prompt), words_of(edit_prompt)
    about = words_of(subject) if subject else _names(edited, vocabulary)
    missed = _unmet(about, asked)
    others = _unmet(_names(asked, vocabulary), edited)
    if missed and others:
        return f"it is about {_quoted(others)}, the edit about {_quoted(about)}"
    if missed:
        return f"it does not name {_quoted(missed)}"
    one, other = _wanted(asked), _wanted(edited)
    if one and other and one != other:
        return f"it asks {one}, the edit asks {other}"
    if others:
        return f"it also names {_quoted(others)}, the edit does not"
    return "it asks something else, or in words too far from the edit's"


def _names(words: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    return [word for word, name in zip(words, vocabulary.name_like(words), strict=True) if name]


def _unmet(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words that none of the others is spelled like; numbers have to be equal."""
    lower = {word.casefold() for word in others}
    return [
        word
        for word in words
        if word.casefold() not in lower
        and (
            any(letter.isdigit() for letter in word)
            or all(float(spelling(word) @ spelling(other)) < _ALIKE for other in others)
        )
    ]


def _wanted(words: Sequence[str]) -> str | None:
    """The sort of answer that a prompt asks for, where it shows one."""
    sorts = [sort for sort in answer_sorts(words) if sort]
    return ANSWER_NAMES[sorts[0] - 1] if sorts else None


def _quoted(words: Sequence[str]) -> str:
    return f'"{" ".join(words)}"'
