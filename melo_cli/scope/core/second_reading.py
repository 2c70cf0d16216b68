"""How a prompt that reaches no edit is read once more: without slips, and with names in full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .misspellings import Speller
from .short_names import ShortNames, Subject
from .vocabulary import Vocabulary


class SecondReading:
    """Writes a prompt as it is meant.

    Args:
        vocabulary: the words that questions are asked with.
        whole: words that the reading model knows, in lower case, the most frequent first.
    """

    def __init__(self, vocabulary: Vocabulary, whole: Sequence[str]) -> None:
        self._speller = Speller(vocabulary, whole)
        self._names = ShortNames(vocabulary, frozenset(whole))

    def of(self, text: str, near: Sequence[tuple[str, NDArray[np.float16]]]) -> str | None:
        """What a prompt is read as; None if that is no other text.

        Args:
            text: the prompt.
            near: the edits that may be meant, the likeliest first: the prompt of each with its token vectors.
        """
        right = self._speller.put_right(text, near[0][0]) or text
        subjects = [Subject.of(prompt, tokens) for prompt, tokens in near]
        full = self._names.in_full(right, [subject for subject in subjects if subject is not None]) or right
        return full if full != text else None
