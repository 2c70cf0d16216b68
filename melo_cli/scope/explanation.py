"""Explains in words why a prompt did not fire its nearest edit."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.scope.core.contrasts import contrast
from melo_cli.scope.core.rules import Route, Rule, Verified
from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import ANSWER_NAMES, answer_sorts, exceptions, folded, spelling, words_of

_WANTS = {
    "whether": "it asks whether something is so, the edit does not",
    "task": "it wants something done with words, the edit an answer",
    "statement": "it says something, and asks for nothing",
}
_SAME_WORD = 0.8  # least cosine of two spellings that count as one word: a typo or another ending


def speaks_against(
    rule: Rule, route: Route, prompt: str, edit_prompt: str, subject: str | None
) -> str | None:
    """What speaks against the nearest edit, where it did not fire under the rule `verified`.

    Args:
        rule: the scope rule.
        route: the route of `prompt`.
        prompt: what was asked.
        edit_prompt: the prompt of the nearest edit.
        subject: subject of the nearest edit; if None, the names in its prompt are used.

    Returns:
        Words for people; None where an edit fired, none is near, or the rule is `radius`.
    """
    if route.held is not None or route.nearest is None or not isinstance(rule, Verified):
        return None
    if route.wants is not None:
        return _WANTS[route.wants]
    return against(route.nearest.asked or prompt, edit_prompt, subject, rule.model.vocabulary)


def against(prompt: str, edit_prompt: str, subject: str | None, vocabulary: Vocabulary) -> str:
    """The difference of a prompt from an edit's prompt: in subject first, then in what is asked.

    Args:
        prompt: the query.
        edit_prompt: the prompt of the edit.
        subject: subject of the edit; if None, the names in its prompt are used.
        vocabulary: distinguishes names from other words.
    """
    asked, edited = words_of(prompt), words_of(edit_prompt)
    about = words_of(subject) if subject else _names(edited, vocabulary)
    missed = _unmet(about, asked)
    others = _unmet(_names(asked, vocabulary), edited)
    if missed and others:
        return f"it is about {_quoted(others)}, the edit about {_quoted(about)}"
    if missed:
        return f"it does not name {_quoted(missed)}"
    if any(exceptions(asked)) and not any(exceptions(edited)):
        return "it asks for another answer than one that it names"
    apart = contrast(asked, edited)
    if apart is not None:
        return f'it says "{apart[0]}" where the edit says "{apart[1]}"'
    one, other = _wanted(asked), _wanted(edited)
    if one and other and one != other:
        return f"it asks {one}, the edit asks {other}"
    if one == "why" and not other:
        return "it asks why, the edit does not"
    if others:
        return f"it also names {_quoted(others)}, the edit does not"
    return "it asks something else, or in words too far from the edit's"


def _names(words: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    return [word for word, name in zip(words, vocabulary.name_like(words), strict=True) if name]


def _unmet(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words that no other word is spelled like; numbers must be equal."""
    plain = {folded(word) for word in others}
    return [
        word
        for word in words
        if folded(word) not in plain
        and (
            any(letter.isdigit() for letter in word)
            or all(float(spelling(folded(word)) @ spelling(other)) < _SAME_WORD for other in plain)
        )
    ]


def _wanted(words: Sequence[str]) -> str | None:
    """The sort of answer that a prompt asks for; None if it shows none."""
    sorts = [sort for sort in answer_sorts(words) if sort]
    return ANSWER_NAMES[sorts[0] - 1] if sorts else None


def _quoted(words: Sequence[str]) -> str:
    return f'"{" ".join(words)}"'
