"""An answer's text while the model writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

# What a tokenizer writes for a character of which some bytes are still to come.
_HALF = "\ufffd"

Show = Callable[[str], None]
"""Told each piece of an answer as it comes."""


class GrowingText:
    """The text of an answer that grows token by token, as far as the next token leaves it as it is.

    A tokenizer may write a token's text in another way once the next one is there.

    Args:
        text: what an answer's tokens say.

    Attributes:
        whole: what the tokens say so far.
    """

    def __init__(self, text: Callable[[Sequence[int]], str]) -> None:
        self._text = text
        self._ids: list[int] = []
        self.whole = ""

    def add(self, ids: Sequence[int]) -> str:
        """The text that is certain after more tokens."""
        self._ids += ids
        before, self.whole = self.whole, self._text(self._ids)
        return _common_start(before, self.whole).rstrip(_HALF)


class AnswerStream(BaseStreamer):
    """Takes tokens from transformers' `generate`, and hands on the text that is certain.

    transformers' own `TextStreamer` hands on whole words, as it decodes them line by line; these pieces
    together are to the letter what the whole answer decodes to.

    Args:
        text: what an answer's tokens say.
    """

    def __init__(self, text: Callable[[Sequence[int]], str], show: Show) -> None:
        self._growing = GrowingText(text)
        self._show = show
        self._after_prompt = False
        self._shown = 0

    def put(self, value: Tensor) -> None:
        """The prompt's tokens at first, then each token of the answer."""
        if not self._after_prompt:
            self._after_prompt = True
            return
        self._hand_on(self._growing.add(value.flatten().tolist()))

    def end(self) -> None:
        """The answer is complete."""
        self._hand_on(self._growing.whole)

    def _hand_on(self, text: str) -> None:
        piece = text[self._shown :]
        if piece:
            self._shown = len(text)
            self._show(piece)


def _common_start(one: str, other: str) -> str:
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((i for i, (left, right) in pairs if left != right), min(len(one), len(other)))]
