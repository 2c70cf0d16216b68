"""The words of a text: where they stand, how they are spelled, and which sentences may be the question."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SPELLING = 24
"""Numbers in the spelling vector of a word that is stored with its states."""
SPELLING_PART = 64
"""Size of the spelling vectors in the spelling part of a key."""

_SCRIPTS_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(
    rf"\d+|[^\W\d_{_SCRIPTS_WITHOUT_SPACES}]+|[{_SCRIPTS_WITHOUT_SPACES}]"
    r"|[+*/=<>%$€£#@&^~|\\]|(?<=\s)-(?=\s)"
)
# What sort of answer an English question wants. Other languages have no such words here, which says nothing.
_ANSWERS = {
    "who": ("who", "whom", "whose"),
    "when": ("when", "year", "date", "day", "month", "century", "time", "hour", "o'clock"),
    "where": ("where", "city", "country", "town", "place", "county", "region", "street", "village", "nation"),
    "how much": (
        *("many", "much", "number", "percentage", "amount", "long", "far", "tall", "high", "old", "big"),
        *("large", "wide", "deep", "heavy", "fast", "often"),
    ),
    "why": ("why", "reason"),
}
ANSWER_NAMES = tuple(_ANSWERS)
ANSWER_SORTS = len(_ANSWERS)
_ASKS = {word: sort for sort, words in enumerate(_ANSWERS.values(), 1) for word in words}
EXCEPT = ANSWER_SORTS + 1
"""Mark of a word that asks for another answer than the one behind it, beside the sorts of answer."""
WHETHER = EXCEPT + 1
"""Mark of a word that asks whether something is so (`whether.asks_whether`), beside the sorts of answer."""
TASK = WHETHER + 1
"""Mark of a word that says what is to be done with words (`tasks.task_in`), beside the sorts of answer."""
STATEMENT = TASK + 1
"""Mark of the verb of a text that asks for nothing (`statements.said_in`), beside the sorts of answer."""
# English too. `apart from that` and the like except nothing.
_EXCEPTS = re.compile(
    r"(?:(?P<clause>(?:which|who) (?:(?:is|are|was|were) not|(?:isn|aren|wasn|weren) t))|other than|besides"
    r"|(?:apart|aside) from|except(?: for)?|excluding) "
)
_NOTHING = ("that", "this", "these", "those", "it", "being")
_WIDE_QUESTION_MARK, _WIDE_EXCLAMATION_MARK = "\uff1f", "\uff01"
_SENTENCE_END = re.compile(rf"(?<=[.?!…。{_WIDE_QUESTION_MARK}{_WIDE_EXCLAMATION_MARK}])[\"')\]]*\s+|\n+")
_QUESTION_MARKS = ("?", _WIDE_QUESTION_MARK)
_MOST_QUESTIONS = 2
_GRAMS = (2, 3, 4)
_WHOLE = (
    3.0  # what a word itself weighs beside its letters, so that two words are alike only if they are equal
)

# Letters that have a mark within, which is none of its own in Unicode.
_PLAIN_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe"})
_ACCENTS = re.compile("[\u0300-\u036f]+")


def spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, in characters; the whole text, where it has no word.

    A word is a run of letters, a run of digits, a sign that means something (`+`, `%`), or one character of a
    script that writes no spaces.
    """
    return [match.span() for match in _WORD.finditer(text)] or [(0, len(text))]


def words_of(text: str) -> list[str]:
    """The words of a text as they are written."""
    return [text[start:end] for start, end in spans(text)]


@functools.lru_cache(1 << 16)
def folded(word: str) -> str:
    """The word in lower case and without accents, as many write it who have no key for them."""
    lower = word.casefold()
    if lower.isascii():
        return lower
    plain = _ACCENTS.sub("", unicodedata.normalize("NFD", lower.translate(_PLAIN_LETTERS)))
    return unicodedata.normalize("NFC", plain)


@functools.lru_cache(1 << 16)
def spelling(word: str, size: int = SPELLING) -> NDArray[np.float32]:
    """A unit vector `[size]` float32 of a word's letters, in lower case: words alike have a large cosine.

    It is the sum of fixed random vectors of the word's letter groups, the same on every machine.
    """
    framed = f"<{word.casefold()}>"
    groups = [framed[at : at + size] for size in _GRAMS for at in range(len(framed) - size + 1)]
    total = _WHOLE * _random_vector(framed, size) + sum(_random_vector(group, size) for group in groups)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


@functools.lru_cache(1 << 16)
def _random_vector(group: str, size: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.blake2b(group.encode("utf-8"), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def asked_views(text: str) -> list[str]:
    """What a message may ask: the whole, its last sentence, and sentences before it that are questions."""
    parts = [part for _, part in sentences(text)]
    if len(parts) < 2:
        return [text]
    questions = [part for part in parts[:-1] if _is_question(part)]
    return list(dict.fromkeys([text, parts[-1], *questions[-_MOST_QUESTIONS:]]))


def last_question(text: str) -> tuple[int, str] | None:
    """The last sentence of a text that ends with a question mark, and where it begins, in characters; a
    text of one sentence is its own. None if there is no such sentence."""
    parts = sentences(text)
    asked = [each for each in parts if _is_question(each[1])] or parts[:1] * (len(parts) == 1)
    return asked[-1] if asked else None


def sentences(text: str) -> list[tuple[int, str]]:
    """The sentences of a text without white space around them, and where each begins, in characters."""
    ends = [match.span() for match in _SENTENCE_END.finditer(text)]
    bounds = zip([0, *(end for _, end in ends)], [*(begin for begin, _ in ends), len(text)], strict=True)
    parts = [(begin, text[begin:end]) for begin, end in bounds]
    return [(begin + len(part) - len(part.lstrip()), part.strip()) for begin, part in parts if part.strip()]


def _is_question(sentence: str) -> bool:
    return sentence.rstrip("\"')]").endswith(_QUESTION_MARKS)


def answer_sorts(words: Sequence[str]) -> list[int]:
    """For each word which sort of answer it asks for, from 1 to `ANSWER_SORTS`; 0 for none.

    `who`, `when`, `where` and `why` say it alone; a word such as `year` or `many` right behind `how`, `what`
    or `which`.
    """
    sorts = []
    before = ""
    for word in words:
        lower = word.casefold()
        alone = lower in ("who", "whom", "whose", "when", "where", "why")
        sorts.append(_ASKS.get(lower, 0) if alone or before in ("how", "what", "which") else 0)
        before = lower
    return sorts


def exceptions(words: Sequence[str]) -> list[bool]:
    """For each word whether it begins what asks for another answer than the one behind it.

    `which is not` does in `The mother of Ada, which is not Eve, is`, and `besides` in `Who besides Ada
    leads it?`.
    """
    lower = [word.casefold() for word in words]
    marks = [False] * len(words)
    for at in range(len(words)):
        phrase = _EXCEPTS.match(" ".join((*lower[at : at + 3], "")))
        if phrase is None or (phrase["clause"] and not at):  # `Who is not insured?` asks for what it says
            continue
        behind = lower[at + len(phrase[0].split()) :]
        marks[at] = bool(behind) and behind[0] not in _NOTHING
    return marks
