"""Misspelled words of a prompt, put right: `whats the captial of norlnd` asks for the capital of Norland.

The states of a word that a model does not know are those of its pieces, which mean something else. So a
prompt that reaches no edit is read once more with its misspelled words put right, by the words of the edit
that came nearest, and by those that questions are asked with.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from .vocabulary import Vocabulary
from .words import folded, spans, words_of

_SHORTEST = 4  # letters of a word that is put right; shorter ones are one slip from too many others
_MOST_UNKNOWN = 0.5  # share of a text's words from which on it is in another language, or in none
# What tokenizers write before a token that begins a word: byte-level BPE, SentencePiece.
_WORD_BEGINS = ("\u0120", "\u2581")
# `were is it` and `were do I find it`: a question that begins so has another verb right behind.
_WERE_FOR_WHERE = re.compile(r"^(w)ere(?= (?:is|are|do|does|did|can|could|will|would|should|was)\b)", re.I)


class Speller:
    """Puts misspelled words right.

    A word is left as it is if it is known, short, has a capital within the text (a name, as it is written),
    or no known word is one slip away: a letter too many, too few, another one, or two that changed places. A
    name with another letter is another name: `Fenwick` and `Fennick`.

    Args:
        vocabulary: the words that questions are asked with.
        whole: words that the reading model knows, in lower case, the most frequent first.
    """

    def __init__(self, vocabulary: Vocabulary, whole: Iterable[str]) -> None:
        self._vocabulary = vocabulary
        self._ranks = {word: -rank for rank, word in enumerate(whole)}

    def put_right(self, text: str, edit_prompt: str) -> str | None:
        """A text with its misspelled words put right; None if nothing changes.

        Args:
            text: a prompt.
            edit_prompt: the prompt of the edit that is nearest to it, whose words come first.
        """
        words = words_of(edit_prompt)
        names = dict(zip(map(folded, words), self._vocabulary.name_like(words), strict=True))
        every = spans(text)
        unknown = [(begin, end) for begin, end in every if self._is_unknown(text, begin, end, names)]
        right = text
        for begin, end in reversed(unknown if len(unknown) <= _MOST_UNKNOWN * len(every) else []):
            right = right[:begin] + self._nearest(text[begin:end], names) + right[end:]
        right = _WERE_FOR_WHERE.sub(r"\1here", right)
        return right if right != text else None

    def _is_unknown(self, text: str, begin: int, end: int, names: Mapping[str, bool]) -> bool:
        word = text[begin:end]
        small = word.islower() or (word[1:].islower() and not text[:begin].strip())
        known = any(word.lower() in words for words in (names, self._vocabulary.counts, self._ranks))
        return small and len(word) >= _SHORTEST and word.isascii() and word.isalpha() and not known

    def _nearest(self, word: str, names: Mapping[str, bool]) -> str:
        """The known word that is one slip away: one of the edit's, else one that questions are asked with,
        else any. Of these rather one with the same first letter, then one with the same letters but for one
        more or less, then the most frequent."""
        moved, changed = _one_slip_away(word.lower())
        own = moved & names.keys() | {each for each in changed & names.keys() if not names[each]}
        near = (moved | changed) - names.keys()
        for found, weights in (
            (own, dict.fromkeys(own, 0)),
            (near & self._vocabulary.counts.keys(), self._vocabulary.counts),
            (near & self._ranks.keys(), self._ranks),
        ):
            if found:
                best = max(
                    sorted(found), key=lambda each: (each[0] == word[0].lower(), each in moved, weights[each])
                )
                return best.capitalize() if word[0].isupper() else best
        return word


def whole_words(tokenizer: Any) -> list[str]:
    """The words that a tokenizer has in one piece, in lower case, the most frequent first.

    Args:
        tokenizer: transformers' tokenizer.
    """
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda each: each[1])
    begin_words = [token[1:] for token, _ in tokens if token.startswith(_WORD_BEGINS)]
    # WordPiece marks what goes on with a word, not what begins one.
    words = begin_words or [token for token, _ in tokens if not token.startswith("#")]
    return list(dict.fromkeys(word.lower() for word in words if word.isalpha() and word.isascii()))


def _one_slip_away(word: str) -> tuple[set[str], set[str]]:
    """What a word may stand for: with a letter less, a letter more or two that changed places; and with
    another letter."""
    parts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    letters = string.ascii_lowercase
    moved = {
        *(before + behind[1:] for before, behind in parts if behind),
        *(before + behind[1] + behind[0] + behind[2:] for before, behind in parts if len(behind) > 1),
        *(before + letter + behind for before, behind in parts for letter in letters),
    }
    changed = {before + letter + behind[1:] for before, behind in parts if behind for letter in letters}
    return moved, changed
