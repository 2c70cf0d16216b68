"""A batch of an encoder-decoder, whose answers begin together and leave one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from melo_cli.models.encoding import pad_prompts
from melo_cli.serving.engines.batch import Batch
from melo_cli.serving.engines.sequences import RunningSequence


class EncoderDecoderBatch(Batch):
    """Answers of an encoder-decoder; others join when it is empty.

    Its decoder counts positions from the first column, so that rows of different ages cannot share one.
    """

    @torch.no_grad()
    def join(self, arrivals: Sequence[RunningSequence]) -> None:
        inputs = pad_prompts(self.base, [sequence.prompt for sequence in arrivals])
        self.sequences = list(arrivals)
        self._mask = inputs["attention_mask"]
        with self.tuner.applied(self.active_blocks()):
            self._encoded: Tensor = self.base.model.get_encoder()(**inputs).last_hidden_state
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = self.own.decoder_start_token_id
        self._next = torch.full((len(arrivals),), start, device=self._mask.device)
        self.step()

    @torch.no_grad()
    def step(self) -> None:
        with self.tuner.applied(self.active_blocks()):
            output = self.base.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
                attention_mask=self._mask,
                decoder_input_ids=self._next.unsqueeze(1),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._next = self.write(self.sequences, output.logits[:, -1])
        self.leave()

    @property
    def is_open(self) -> bool:
        return not self.sequences

    def keep(self, rows: Tensor) -> None:
        self._mask, self._next, self._encoded = self._mask[rows], self._next[rows], self._encoded[rows]
        self._cache.batch_select_indices(rows)

    def empty(self) -> None:
        return None
