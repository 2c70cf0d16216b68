"""Reads prompts: runs a model up to the key layer, and takes the states of the words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .misspellings import whole_words
from .readings import Reading, read_states
from .text_model import TextModel
from .tuning import Tuning

Advance = Callable[[int], None]

MOST_TOKENS = 512
"""Largest number of tokens read of a text: the question is at one of its ends, and its last sentence is read
on its own too."""
_ROWS = 64


@dataclass(frozen=True)
class ReadingPlan:
    """How texts are read.

    Attributes:
        low: name of the lower layer.
        high: name of the higher layer.
        pooling: which state at the higher layer stands for the text (`readings.read_states`).
        limit: largest number of tokens.
    """

    low: str
    high: str
    pooling: str
    limit: int


class TextReader(Protocol):
    """Reads texts."""

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """The states of the words of texts.

        Args:
            texts: what is read.
            advance: called with the number of texts read since the last call.
        """

    def whole_words(self) -> Sequence[str]:
        """The words that the model knows in one piece, in lower case, the most frequent first."""

    def tuned(self, tuning: Tuning) -> TextReader:
        """The same with a tuned model."""


class Reader:
    """Turns texts into the states of their words.

    Args:
        model: the model that reads; its tokenizer must give the offsets of tokens.
        plan: how texts are read.
    """

    def __init__(self, model: TextModel, plan: ReadingPlan) -> None:
        self._model = model
        self._plan = plan

    def whole_words(self) -> list[str]:
        return whole_words(self._model.tokenizer)

    def tuned(self, tuning: Tuning) -> Reader:
        return Reader(self._model.tuned(tuning), self._plan)

    def batches(self, texts: Sequence[str]) -> list[list[int]]:
        """The batches in which texts are read, as their indices; a run of whole batches, read by itself, is
        read in the same ones."""
        ids = self._model.tokenizer(list(texts), truncation=True, max_length=self._plan.limit)["input_ids"]
        return _batches(ids)

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """Read texts in batches of similar length; the result for a text does not depend on the others."""
        plan = self._plan
        encoded = self._model.tokenizer(
            list(texts), truncation=True, max_length=plan.limit, return_offsets_mapping=True
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        layers = list(dict.fromkeys((plan.low, plan.high)))
        batches = _batches(ids)
        parts = []
        for rows in batches:
            states, mask = self._model.states([ids[row] for row in rows], layers)
            some, spans = [texts[row] for row in rows], [offsets[row] or [(0, 0)] for row in rows]
            parts.append(read_states(some, spans, states[plan.low], states[plan.high], mask, plan.pooling))
            if advance is not None:
                advance(len(rows))
        return in_order(parts, batches)


def in_order(parts: list[Reading], batches: Sequence[Sequence[int]]) -> Reading:
    """The readings of batches as one, in the order of the texts; `parts` is emptied, since it may be large.

    Args:
        parts: the reading of each batch.
        batches: the indices of its texts.
    """
    order = [row for rows in batches for row in rows]
    inverse = [0] * len(order)
    for at, row in enumerate(order):
        inverse[row] = at
    joined = Reading.joined(parts)
    parts.clear()  # frees a copy
    return joined if inverse == sorted(inverse) else joined.of(inverse)


def _batches(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    return [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
