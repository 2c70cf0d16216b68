"""A batch of a decoder, which answers join and leave between two tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache

from melo_cli.errors import ModelError
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import pad_prompts
from melo_cli.serving.engines.batch import Batch
from melo_cli.serving.engines.sequences import RunningSequence
from melo_cli.tuner import DynamicLoraModel

_PLAIN = frozenset(("full_attention", "sliding_attention"))


class DecoderBatch(Batch):
    """Answers of a decoder-only model.

    Rows are padded on the left, so that each one's next token stands in the last column. Those that join are
    filled up to the length of those that are there, or the other way round. Every layer keeps all keys and
    values: the attention mask hides what lies outside a sliding window.

    Raises:
        ModelError: a layer keeps something else than keys and values of tokens.
    """

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, cache_bytes: int) -> None:
        parameters = inspect.signature(base.model.forward).parameters
        self._prefill_options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._takes_positions = "position_ids" in parameters
        layers = getattr(base.model.config.get_text_config(decoder=True), "layer_types", None) or ()
        other = sorted(set(layers) - _PLAIN)
        if other:
            raise ModelError(
                f"it has layers of {', '.join(other)}, and answers cannot join what these keep",
                where=base.reference.describe(),
                hint="serve it by another engine, with --upstream",
            )
        self._cache = DynamicCache()
        self._mask = torch.empty((0, 0), dtype=torch.long, device=tuner.device)
        self._next = torch.empty(0, dtype=torch.long, device=tuner.device)
        super().__init__(base, tuner, cache_bytes)

    @property
    def is_open(self) -> bool:
        return True

    @torch.no_grad()
    def join(self, arrivals: Sequence[RunningSequence]) -> None:
        inputs = pad_prompts(self.base, [sequence.prompt for sequence in arrivals])
        cache = DynamicCache()
        with self.tuner.applied(self.blocks_of(arrivals)):
            output = self.base.model(**inputs, past_key_values=cache, use_cache=True, **self._prefill_options)
        tokens = self.write(arrivals, output.logits[:, -1])
        self._join_cache(cache, inputs["attention_mask"])
        self._next = torch.cat([self._next, tokens])
        self.sequences += arrivals
        self._active = None
        self.leave()

    @torch.no_grad()
    def step(self) -> None:
        self._mask = pad(self._mask, (0, 1), value=1)
        inputs: dict[str, Any] = {"input_ids": self._next.unsqueeze(1), "attention_mask": self._mask}
        if self._takes_positions:
            inputs["position_ids"] = self._mask.sum(-1, keepdim=True) - 1
        with self.tuner.applied(self.active_blocks()):
            output = self.base.model(**inputs, past_key_values=self._cache, use_cache=True)
        self._next = self.write(self.sequences, output.logits[:, -1])
        self.leave()

    def keep(self, rows: Tensor) -> None:
        """Keep these rows, without the columns that are padding in all of them."""
        self._mask, self._next = self._mask[rows], self._next[rows]
        unused = int(self._mask.any(0).long().argmax())
        self._mask = self._mask[:, unused:]
        for layer in _layers(self._cache):
            layer.keys = layer.keys[rows, :, unused:]
            layer.values = layer.values[rows, :, unused:]

    def empty(self) -> None:
        self._cache, self._mask, self._next = DynamicCache(), self._mask[:0, :0], self._next[:0]

    def _join_cache(self, cache: DynamicCache, mask: Tensor) -> None:
        """Put the rows of another cache below those that are there, both filled up on the left."""
        if not self.sequences:
            self._cache, self._mask = cache, mask
            return
        length = max(mask.shape[1], self._mask.shape[1])
        mine, others = length - self._mask.shape[1], length - mask.shape[1]
        self._mask = torch.cat([pad(self._mask, (mine, 0)), pad(mask, (others, 0))])
        for layer, other in zip(_layers(self._cache), _layers(cache), strict=True):
            layer.keys = _joined(layer.keys, mine, other.keys, others)
            layer.values = _joined(layer.values, mine, other.values, others)


def _layers(cache: DynamicCache) -> list[Any]:
    """The layers of a cache that keeps keys and values of every token."""
    return list(cache.layers)


def _joined(upper: Tensor, upper_filled: int, lower: Tensor, lower_filled: int) -> Tensor:
    """Two caches `[rows, heads, length, d]`, each filled up on the left by so many places."""
    return torch.cat([pad(upper, (0, 0, upper_filled, 0)), pad(lower, (0, 0, lower_filled, 0))])
