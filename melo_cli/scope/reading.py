"""Reads prompts: runs the base model, or the sentence encoder, as far as the layers that scope is taken at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from melo_cli.architecture import embedding_name
from melo_cli.base_model import BaseModel, ModelKind
from melo_cli.encoding import pad_prompts, with_positions
from melo_cli.errors import ModelError
from melo_cli.hidden_states import hidden_states, states_at
from melo_cli.scope.core.readings import Reading, read_states
from melo_cli.sentence_encoder import SentenceEncoder

Advance = Callable[[int], None]

_ROWS = 64
_MOST_TOKENS = 512
"""Tokens of a text that are read; what is asked stands at one of its ends, and its last sentence is read too."""


class Reader(Protocol):
    """Turns texts into the states of their words."""

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """Read texts, in batches of like length; what is read of one does not depend on the others."""


class BaseReader:
    """Reads with the base model's own states: its input embeddings, and one layer above.

    Raises:
        ModelError: its tokenizer does not say where tokens stand in a text.
    """

    def __init__(self, base: BaseModel, layer: str) -> None:
        if not base.tokenizer.is_fast:
            raise ModelError(
                "its tokenizer does not tell where its tokens stand in a text",
                where=base.reference.describe(),
                mend="name a sentence encoder as key.encoder, or set routing.scope=radius with a key.radius",
            )
        self._base = base
        self._low, self._high = embedding_name(base), layer
        self._limit = min(base.max_length or _MOST_TOKENS, _MOST_TOKENS)
        self._pooling = "last" if base.kind is ModelKind.CAUSAL else "mean"

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        encoded = self._base.tokenizer(
            list(texts), truncation=True, max_length=self._limit, return_offsets_mapping=True
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        layers = list(dict.fromkeys((self._low, self._high)))

        def run(rows: Sequence[int]) -> Reading:
            inputs = pad_prompts(
                self._base, [ids[row] or [self._base.tokenizer.pad_token_id] for row in rows]
            )
            states = hidden_states(self._base, layers, with_positions(self._base, inputs))
            return read_states(
                [texts[row] for row in rows],
                [offsets[row] or [(0, 0)] for row in rows],
                states[self._low],
                states[self._high],
                inputs["attention_mask"],
                self._pooling,
            )

        return _in_batches([len(row) for row in ids], run, advance)


class EncoderReader:
    """Reads with a sentence encoder's states, lowest and highest."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._low, self._high = encoder.layers()
        positions = getattr(encoder.model.config, "max_position_embeddings", _MOST_TOKENS)
        # RoBERTa counts positions from its padding token on, so two of them are none.
        self._limit = min(positions - 2, encoder.tokenizer.model_max_length, _MOST_TOKENS)

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        tokenizer = self._encoder.tokenizer
        encoded = tokenizer(list(texts), truncation=True, max_length=self._limit, return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")

        def run(rows: Sequence[int]) -> Reading:
            some = {name: [column[row] for row in rows] for name, column in encoded.items()}
            inputs = tokenizer.pad(some, return_tensors="pt", padding_side="right")
            states = states_at(self._encoder.model, self._encoder.model, [self._low, self._high], inputs)
            return read_states(
                [texts[row] for row in rows],
                [offsets[row] for row in rows],
                states[self._low],
                states[self._high],
                inputs["attention_mask"],
                self._encoder.pooling,
            )

        return _in_batches([len(row) for row in encoded["input_ids"]], run, advance)


def reader_for(base: BaseModel, layer: str) -> Reader:
    """The reader of a base model: of its sentence encoder, where it has one beside it."""
    return EncoderReader(base.encoder) if base.encoder is not None else BaseReader(base, layer)


@torch.no_grad()
def _in_batches(
    lengths: Sequence[int], run: Callable[[Sequence[int]], Reading], advance: Advance | None
) -> Reading:
    """Read rows in batches of like length, and put them in order again."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = []
    for start in range(0, len(order), _ROWS):
        some = order[start : start + _ROWS]
        parts.append(run(some))
        if advance is not None:
            advance(len(some))
    place = [0] * len(order)
    for at, row in enumerate(order):
        place[row] = at
    return Reading.joined(parts).of(place)
