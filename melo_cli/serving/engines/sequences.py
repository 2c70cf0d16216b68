"""One answer that is being written, and how its tokens are chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melo_store.records import Block


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: the smallest set of tokens with this probability together is drawn from.
        top_k: the number of tokens to draw from, 0 for all.
        seed: makes the draws repeatable.
        max_tokens: longest answer, stop token included.
        logprobs: number of likeliest tokens to report at each step; None reports nothing.
        ends: whether a stop token ends the answer.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 16
    logprobs: int | None = None
    ends: bool = True


@dataclass(frozen=True)
class Chosen:
    """One token of an answer.

    Attributes:
        token: its id.
        logprob: its log probability under the model, nats; None where not asked for.
        top: the likeliest tokens at its place with their log probabilities.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Finished:
    """The end of an answer.

    Attributes:
        reason: `stop` or `length`, as OpenAI's API says it.
    """

    reason: str


Event = Chosen | Finished | Exception


@dataclass(eq=False)
class RunningSequence:
    """An answer that is being written.

    Attributes:
        prompt: tokens of the prompt.
        block: the block that answers; None for the base model. The answer keeps it, whatever becomes of the
            edit.
        emit: called with each event, in the thread that writes.
        written: number of tokens chosen so far.
        done: whether the answer has come to its end.
    """

    prompt: Sequence[int]
    block: Block | None
    sampling: Sampling
    emit: Callable[[Event], None]
    written: int = 0
    done: bool = False
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _generator: torch.Generator | None = None

    def cancel(self) -> None:
        """Stop before the next token; called from another thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled.is_set()

    def finish(self, end: Finished) -> None:
        """Emit the end of the answer."""
        self.done = True
        self.emit(end)

    def draw(self, logits: Tensor) -> int:
        """Draw the next token.

        Args:
            logits: `[vocabulary]` float32.
        """
        sampling = self.sampling
        if self._generator is None:
            self._generator = torch.Generator(logits.device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)
        scaled = logits / sampling.temperature
        if sampling.top_k:
            least = scaled.topk(min(sampling.top_k, len(scaled))).values[-1]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        probabilities = scaled.softmax(-1)
        if sampling.top_p < 1.0:
            probabilities = _nucleus(probabilities, sampling.top_p)
        return int(probabilities.multinomial(1, generator=self._generator))


def _nucleus(probabilities: Tensor, share: float) -> Tensor:
    """Keep the probabilities `[vocabulary]` of the smallest set of tokens that has `share` of them."""
    ordered, tokens = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= share, 0.0)
    return torch.zeros_like(probabilities).scatter_(0, tokens, kept)
