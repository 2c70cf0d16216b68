"""Shortened names in a prompt, written in full: `When was Lovelace born?` asks about an edit's Ada Lovelace.

Whoever talks about one thing rarely writes its whole name. So a prompt that reaches no edit is read once more
with the name in full, where what stands there can only mean one subject near it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .features import SUBJECT_FLAG
from .readings import looked_at
from .vocabulary import Vocabulary
from .words import folded, spans

_SMALL = frozenset(
    ["a", "an", "the", "of", "and", "for", "in", "on", "at", "to", "s", "de", "la", "le", "von", "van"]
)
"""Words that no name is known by."""
_NO_NAMES = ("I", "A")
_ENOUGH = 3  # words of a name that need no rare one among them
_RARE = 0.6  # rarity of a first word that no question begins with


@dataclass(frozen=True)
class Subject:
    """The subject of an edit.

    Attributes:
        text: as its prompt writes it.
        words: its words, folded.
        beside: the words of its prompt, folded.
        capitals: those that have a capital or a digit.
    """

    text: str
    words: tuple[str, ...]
    beside: frozenset[str]
    capitals: frozenset[str]

    @classmethod
    def of(cls, prompt: str, tokens: NDArray[np.float16]) -> Subject | None:
        """The longest run of words of a prompt that its token vectors mark as its subject's; None if it has
        none."""
        places = looked_at(prompt)
        words = [prompt[begin:end] for begin, end in places]
        small = [folded(word) in _SMALL for word in words]
        marked = [bool(flag) for flag in tokens[:, SUBJECT_FLAG]]
        runs = [_trimmed(run, small) for run in _runs(marked)]
        run = max(runs, key=len, default=[])
        if not run:
            return None
        return cls(
            prompt[places[run[0]][0] : places[run[-1]][1]],
            tuple(folded(words[at]) for at in run),
            frozenset(map(folded, words)),
            frozenset(folded(word) for word in words if word[0].isupper() or word[0].isdigit()),
        )


@dataclass(frozen=True)
class _Text:
    """A prompt: where its words stand, and these folded."""

    text: str
    places: Sequence[tuple[int, int]]
    words: Sequence[str]

    @classmethod
    def of(cls, text: str) -> _Text:
        places = spans(text)
        return cls(text, places, [folded(text[begin:end]) for begin, end in places])


class ShortNames:
    """Writes shortened names in full.

    Words of a subject stand for it if they stand together, are enough of a name, and nothing else in the
    prompt may be a name: `Karl Vasmaling` is not `Ada Vasmaling`. What is left out must be part of a name,
    too: `the Vellix HTTP server` is another thing than `the Vellix HTTP client`.

    Args:
        vocabulary: the words that questions are asked with.
        whole: words that the reading model knows, in lower case.
    """

    def __init__(self, vocabulary: Vocabulary, whole: Container[str]) -> None:
        self._vocabulary = vocabulary
        self._whole = whole

    def in_full(self, text: str, subjects: Iterable[Subject]) -> str | None:
        """A text with the one name in full that is shortened in it; None if there is none, or if it may be
        that of several subjects.

        Args:
            text: a prompt.
            subjects: those of the edits that are nearest to it.
        """
        asked = _Text.of(text)
        beside: dict[tuple[str, ...], set[str]] = {}
        by_words: dict[tuple[str, ...], Subject] = {}
        for subject in subjects:
            by_words[subject.words] = subject
            beside.setdefault(subject.words, set()).update(subject.beside)
        if any(set(words) <= set(asked.words) for words in by_words):
            return None
        found = {words: self._short(asked, by_words[words], beside[words]) for words in by_words}
        meant = [(by_words[words], run) for words, run in found.items() if run]
        if len(meant) != 1:
            return None
        ((subject, run),) = meant
        return text[: asked.places[run[0]][0]] + subject.text + text[asked.places[run[-1]][1] :]

    def _short(self, asked: _Text, subject: Subject, beside: Container[str]) -> list[int]:
        """The words of a text that stand for a subject, by their index; none if it is not meant."""
        small = [word in _SMALL for word in asked.words]
        runs = [_trimmed(run, small) for run in _runs([word in subject.words for word in asked.words])]
        runs = [run for run in runs if run]
        if len(runs) != 1:
            return []
        (run,) = runs
        short = [asked.words[at] for at in run]
        left_out = set(subject.words) - set(short) - _SMALL
        others = [at for at, word in enumerate(asked.words) if at not in run and word not in beside]
        is_meant = (
            self._is_enough(short)
            and self._is_part(short, subject.words)
            and left_out <= subject.capitals
            and not any(self._may_be_a_name(asked, at, at == run[0] - 1) for at in others)
        )
        return run if is_meant else []

    def _is_enough(self, short: Sequence[str]) -> bool:
        """Whether some words of a name say which it is: three of them, or one that is no word of the
        language."""
        some = [word for word in short if word not in _SMALL]
        return len(some) >= _ENOUGH or any(not self._is_known(word) and not word.isdigit() for word in some)

    def _is_part(self, short: Sequence[str], words: Sequence[str]) -> bool:
        """Whether they stand in a name as they do here; one that begins with a rare word may lack some
        within."""
        if not self._is_known(short[0]):
            rest = iter(words)
            return all(word in rest for word in short)
        return any(list(short) == list(words[at : at + len(short)]) for at in range(len(words)))

    def _may_be_a_name(self, asked: _Text, at: int, is_before: bool) -> bool:
        """Whether a word of a text may be a name, or part of one.

        Args:
            is_before: it stands right before the words in question; only there the first word of a text,
                which has a capital anyway, may be part of a name.
        """
        begin, end = asked.places[at]
        word = asked.text[begin:end]
        if word in _NO_NAMES or word in _SMALL:
            return False
        capital = word[0].isupper() and (at > 0 or (is_before and self._vocabulary.rarity(word) > _RARE))
        return capital or any(letter.isdigit() for letter in word) or not self._is_known(asked.words[at])

    def _is_known(self, word: str) -> bool:
        return word in self._whole or word in self._vocabulary.counts


def _runs(marked: Sequence[bool]) -> list[list[int]]:
    """The runs of marked places, by index."""
    runs: list[list[int]] = []
    for at, mark in enumerate(marked):
        if mark and at and marked[at - 1]:
            runs[-1].append(at)
        elif mark:
            runs.append([at])
    return runs


def _trimmed(run: Sequence[int], small: Sequence[bool]) -> list[int]:
    """A run without small words at its ends."""
    kept = [at for at in run if not small[at]]
    return list(range(kept[0], kept[-1] + 1)) if kept else []
