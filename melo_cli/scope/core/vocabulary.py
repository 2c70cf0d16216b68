"""How rare a word is among questions, and which words of a prompt read like names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .words import words_of


class Vocabulary:
    """The words that questions are asked with, by the number of kinds of questions that use them.

    Args:
        counts: for each word, in lower case, how many kinds use it.
        kinds: how many kinds there are.
    """

    def __init__(self, counts: Mapping[str, int], kinds: int) -> None:
        self.counts = dict(counts)
        self.kinds = kinds

    @classmethod
    def of(cls, groups: Sequence[Iterable[str]]) -> Vocabulary:
        """Count words over groups of texts; each group is one kind of question, or one other text."""
        counts: Counter[str] = Counter()
        for texts in groups:
            counts.update({word.casefold() for text in texts for word in words_of(text)})
        return cls(counts, len(groups))

    def rarity(self, word: str) -> float:
        """From 0, a word that every kind uses, to 1, one that none does."""
        return 1.0 - math.log1p(self.counts.get(word.casefold(), 0)) / math.log1p(self.kinds)

    def name_like(self, words: Sequence[str]) -> list[bool]:
        """Which words of a text read like names: unknown ones, capitals inside the text, and digits."""
        return [
            word.casefold() not in self.counts
            or any(letter.isdigit() for letter in word)
            or (at > 0 and word[0].isupper() and word != "I")
            for at, word in enumerate(words)
        ]
