"""Answers that are written together, a token each at a step; every row has its own block or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.runtime.block_cache import BlockCache
from melo_cli.serving.engines.sequences import Chosen, Finished, RunningSequence
from melo_cli.tuner import ActiveBlocks, DynamicLoraModel
from melo_store.records import Block


class Batch(ABC):
    """The rows of a batch: their blocks, and how their next tokens are chosen.

    Args:
        base: the model that writes.
        tuner: the tuner over it.
        cache_bytes: device memory for blocks that were used lately.

    Attributes:
        sequences: the answers, row by row.
        own: the model's generation config.
    """

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, cache_bytes: int) -> None:
        self.base = base
        self.tuner = tuner
        self.own = base.model.generation_config
        self.sequences: list[RunningSequence] = []
        self._held: dict[str, Block] = {}
        self._blocks = BlockCache(lambda block_id: self._held[block_id], tuner.device, cache_bytes)
        self._active: ActiveBlocks | None = None

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether answers may join."""

    @abstractmethod
    def join(self, arrivals: Sequence[RunningSequence]) -> None:
        """Read the prompts of new answers, write the first token of each, and go on with them."""

    @abstractmethod
    def step(self) -> None:
        """Write one more token of each answer."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Keep these rows `[n]` int64 of what the model has read, in their order."""

    @abstractmethod
    def empty(self) -> None:
        """Forget all that the model has read."""

    def drop_cancelled(self) -> None:
        """Remove the answers that nobody waits for any more."""
        for sequence in self.sequences:
            sequence.done |= sequence.cancelled
        self.leave()

    def fail(self, error: Exception) -> None:
        """Fail all answers, and forget them."""
        for sequence in self.sequences:
            sequence.emit(error)
        self.sequences, self._active = [], None
        self.empty()

    def active_blocks(self) -> ActiveBlocks:
        """The blocks of the rows."""
        if self._active is None:
            self._active = self.blocks_of(self.sequences)
        return self._active

    def blocks_of(self, sequences: Sequence[RunningSequence]) -> ActiveBlocks:
        """The blocks of rows that need not be in the batch yet."""
        self._held = {each.block.block_id: each.block for each in sequences if each.block is not None}
        banks, rows = self._blocks.banks([each.block.block_id if each.block else None for each in sequences])
        return ActiveBlocks.of(banks, rows, self.tuner.device)

    def write(self, sequences: Sequence[RunningSequence], logits: Tensor) -> Tensor:
        """Choose the next token of each answer and emit it.

        Args:
            logits: `[rows, vocabulary]`.

        Returns:
            `[rows]` int64.
        """
        logits = logits.float()
        self._suppress(sequences, logits)
        tokens = logits.argmax(-1)
        for row, sequence in enumerate(sequences):
            if sequence.sampling.temperature > 0:
                tokens[row] = sequence.draw(logits[row])
        for row, (sequence, token) in enumerate(zip(sequences, tokens.tolist(), strict=True)):
            count = sequence.sampling.logprobs
            self._emit(
                sequence, Chosen(token) if count is None else _with_logprobs(token, logits[row], count)
            )
        return tokens

    def leave(self) -> None:
        """Remove the rows of finished answers."""
        if not any(sequence.done for sequence in self.sequences):
            return
        kept = [row for row, sequence in enumerate(self.sequences) if not sequence.done]
        self.sequences, self._active = [self.sequences[row] for row in kept], None
        if kept:
            self.keep(torch.tensor(kept, device=self.tuner.device))
        else:
            self.empty()

    def _emit(self, sequence: RunningSequence, chosen: Chosen) -> None:
        sequence.written += 1
        if sequence.sampling.ends and chosen.token in self.base.special.stops:
            sequence.finish(Finished("stop"))
            return
        sequence.emit(chosen)
        if sequence.written == sequence.sampling.max_tokens:
            sequence.finish(Finished("length"))

    def _suppress(self, sequences: Sequence[RunningSequence], logits: Tensor) -> None:
        """Rule out what the generation config rules out: at any place, at the first, at the last."""
        own = self.own
        if own is None:
            return
        if own.suppress_tokens:
            logits[:, own.suppress_tokens] = -torch.inf
        for row, sequence in enumerate(sequences):
            if not sequence.written and own.begin_suppress_tokens:
                logits[row, own.begin_suppress_tokens] = -torch.inf
            if not sequence.written and self.base.kind is ModelKind.SEQ2SEQ:
                _force(logits[row], own.forced_bos_token_id)
            if sequence.written == sequence.sampling.max_tokens - 1:
                _force(logits[row], own.forced_eos_token_id)


def _force(logits: Tensor, token: int | list[int] | None) -> None:
    """Leave nothing but one token `[vocabulary]` to choose, if there is one."""
    if token is None:
        return
    kept = logits[token].clone()
    logits.fill_(-torch.inf)
    logits[token] = kept


def _with_logprobs(token: int, logits: Tensor, count: int) -> Chosen:
    """The token with the `count` likeliest at its place; `logits` is `[vocabulary]`."""
    logprobs = logits.log_softmax(-1)
    likeliest = logprobs.topk(count)
    top = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return Chosen(token, float(logprobs[token]), tuple(top))
