"""Reads prompts: runs a model up to the key layer, and takes the states of the words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .readings import Reading, read_states
from .text_model import TextModel

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


class Reader:
    """Turns texts into the states of their words.

    Args:
        model: the model that reads; its tokenizer must give the offsets of tokens.
        plan: how texts are read.
    """

    def __init__(self, model: TextModel, plan: ReadingPlan) -> None:
        self._model = model
        self._plan = plan

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """Read texts in batches of similar length; the result for a text does not depend on the others."""
        plan = self._plan
        encoded = self._model.tokenizer(
            list(texts), truncation=True, max_length=plan.limit, return_offsets_mapping=True
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        layers = list(dict.fromkeys((plan.low, plan.high)))
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        parts = []
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            states, mask = self._model.states([ids[row] for row in rows], layers)
            some, spans = [texts[row] for row in rows], [offsets[row] or [(0, 0)] for row in rows]
            parts.append(read_states(some, spans, states[plan.low], states[plan.high], mask, plan.pooling))
            if advance is not None:
                advance(len(rows))
        inverse = [0] * len(order)
        for at, row in enumerate(order):
            inverse[row] = at
        joined = Reading.joined(parts)
        parts.clear()  # frees a copy, which is large for many texts
        return joined if inverse == sorted(inverse) else joined.of(inverse)
