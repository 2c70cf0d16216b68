"""Reads prompts: runs a model as far as the layers that scope is taken at, and takes the words out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .readings import Reading, read_states
from .text_model import TextModel

Advance = Callable[[int], None]

MOST_TOKENS = 512
"""Tokens of a text that are read: what is asked stands at one of its ends, and its last sentence is read too.
"""
_ROWS = 64


@dataclass(frozen=True)
class ReadingPlan:
    """What is read of a text.

    Attributes:
        low, high: names of the two layers.
        pooling: which state at the higher layer stands for the text (`readings.read_states`).
        limit: tokens at most.
    """

    low: str
    high: str
    pooling: str
    limit: int


class Reader:
    """Turns texts into the states of their words.

    Args:
        model: its tokenizer tells where tokens stand in a text.
    """

    def __init__(self, model: TextModel, plan: ReadingPlan) -> None:
        self._model = model
        self._plan = plan

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """Read texts, in batches of like length; what is read of one does not depend on the others."""
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
        place = [0] * len(order)
        for at, row in enumerate(order):
            place[row] = at
        joined = Reading.joined(parts)
        parts.clear()  # of many texts every copy counts
        return joined.of(place)
