"""Guesses the subject of a prompt without a given one: a name in it."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_](?:[\w'\u2019.&/-]*[\w&])?")
# Stand inside a name in lower case: "Bank of Norland", "Rio de Janeiro".
_JOINING = frozenset(
    ["of", "de", "da", "do", "del", "di", "la", "le", "van", "von", "der", "den", "und", "and", "the", "for"]
)
# Begin a question in English, and are in capitals by that alone.
_OPENING = frozenset(
    [
        *("who", "whom", "whose", "what", "which", "when", "where", "why", "how", "is", "are", "was", "were"),
        *("do", "does", "did", "can", "could", "will", "would", "should", "has", "have", "had", "please"),
        *("name", "tell", "give", "list", "say", "in", "on", "at", "for", "from", "of", "to", "by"),
    ]
)
# Words of a prompt from which on it is a document, and about many things.
_DOCUMENT = 64


def guessed_subject(prompt: str) -> str | None:
    """The longest name in a prompt, of equals the first: words with a capital or a digit, side by side.

    The first word of a sentence is in capitals anyhow: alone it is a name where there is no other. None where
    there is no name, as in a prompt in lower case, where there are numbers alone, and in a whole document.
    """
    if len(prompt.split()) >= _DOCUMENT:
        return None
    runs = _runs(prompt)
    named = [run for run in runs if len(run) > 1 or not _opens_sentence(prompt, run[0])] or runs
    longest = max(named, key=len, default=None)
    return prompt[longest[0].start() : longest[-1].end()] if longest else None


def _runs(prompt: str) -> list[list[re.Match[str]]]:
    runs: list[list[re.Match[str]]] = [[]]
    end = 0
    for word in _WORD.finditer(prompt):
        if not prompt[end : word.start()].isspace():  # a mark between two words ends a name
            runs.append([])
        run, end = runs[-1], word.end()
        joins = bool(run) and word[0] in _JOINING and not run[-1][0].isupper()
        if joins or (_is_name(word[0]) and not (not run and word[0].casefold() in _OPENING)):
            run.append(word)
        elif run:
            runs.append([])
    ended = map(_without_joining_end, runs)
    return [run for run in ended if any(letter.isalpha() for word in run for letter in word[0])]


def _is_name(word: str) -> bool:
    return any(letter.isupper() or letter.isdigit() for letter in word)


def _without_joining_end(run: list[re.Match[str]]) -> list[re.Match[str]]:
    while run and run[-1][0] in _JOINING:
        run = run[:-1]
    return run


def _opens_sentence(prompt: str, word: re.Match[str]) -> bool:
    """Whether a word is capitalized only because it begins a sentence; capitals or digits inside make it a
    name."""
    before = prompt[: word.start()].rstrip(" \t\"'\u201c\u2018(")
    return (not before or before[-1] in ".?!:\n") and not _is_name(word[0][1:])
