"""Asks the model: greedy answers and teacher-forced scores, in batches of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import IGNORED, EncodedEdit, Encoder, pad_prompts
from melo_cli.runtime.greedy import room_after, until_stop, write_greedily
from melo_cli.runtime.scoring import target_batch, target_logits
from melo_cli.runtime.streaming import AnswerStream, Show
from melo_cli.scope.core.rules import Route

_ROWS = 32
_TOKENS = 8192
# exp of more has no float.
_MOST_NATS = 700.0

Advance = Callable[[int], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class TokenScores:
    """The teacher-forced score of one target.

    Attributes:
        log_likelihood: sum over the target's text tokens (stop token left out), nats.
        tokens: how many those are.
        choices: the model's first choice at every target position, stop token included.
        right: how many of them are the target's own token.
    """

    log_likelihood: float
    tokens: int
    choices: tuple[int, ...]
    right: int

    @property
    def accuracy(self) -> float:
        """Share of target tokens that are the model's first choice."""
        return self.right / len(self.choices)


class Routes(Protocol):
    """Where routes come from: a project's router, or another editor's codebook."""

    def routes(self, texts: Sequence[str], advance: Advance | None = None) -> list[Route]: ...


class InferenceModel(Protocol):
    """What an `Inference` asks: a routed model, or another editor's that routes in its own way."""

    @property
    def base(self) -> BaseModel: ...

    @property
    def router(self) -> Routes: ...

    def using(self, block_ids: Sequence[str | None]) -> AbstractContextManager[None]: ...


class Inference:
    """Asks one routed model with explicit blocks: the caller chooses the block for each prompt.

    Args:
        encoder: encodes for the same base model.
    """

    def __init__(self, routed: InferenceModel, encoder: Encoder) -> None:
        self.routed = routed
        self.base = routed.base
        self.encoder = encoder

    def routes(self, prompts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        """Routes of prompts, by their own texts.

        Args:
            prompts: texts without a chat template.
            advance: called with the number of prompts that were routed since the last call.

        Returns:
            One route for each prompt, in order.
        """
        return self.routed.router.routes(prompts, advance) if prompts else []

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        blocks: Sequence[str | None],
        max_new_tokens: Sequence[int],
        advance: Advance | None = None,
    ) -> list[str]:
        """Greedy answers: the text up to the stop token, or a classifier's class name.

        Args:
            prompts: token ids of each prompt, without padding.
            blocks: the block that answers each prompt, None for the base.
            max_new_tokens: tokens that each answer may have at most, stop token included.
            advance: called with the number of prompts of each batch that is done.

        Returns:
            One answer for each prompt, in order.
        """
        lengths = [len(prompt) + most for prompt, most in zip(prompts, max_new_tokens, strict=True)]
        return self._in_batches(self.answers_of_batch, lengths, (prompts, blocks, max_new_tokens), advance)

    def stream(
        self, prompt: Sequence[int], block: str | None, max_new_tokens: int, show: Show
    ) -> tuple[str, bool]:
        """One greedy answer, shown piece by piece while it is written: the one that `answers` gives.

        Args:
            block: the block that answers, None for the base, which is no classifier.

        Returns:
            The answer, and whether the model had come to its end.
        """
        limit = min(max_new_tokens, room_after(self.base, len(prompt)))
        stream = AnswerStream(lambda ids: self.encoder.text(until_stop(self.base, list(ids))), show)
        with torch.no_grad(), self.routed.using([block]):
            (written,) = write_greedily(self.base, [prompt], limit, stream)
        return self.encoder.text(written), len(written) < limit

    def scores(
        self, edits: Sequence[EncodedEdit], blocks: Sequence[str | None], advance: Advance | None = None
    ) -> list[TokenScores]:
        """Teacher-forced scores of targets under the blocks given.

        Args:
            edits: prompts with their targets, as token ids.
            blocks: the block in force for each edit, None for the base.
            advance: called with the number of edits of each batch that is done.

        Returns:
            One score for each edit, in order.
        """
        lengths = [len(edit.prompt_ids) + len(edit.target_ids) for edit in edits]
        return self._in_batches(self.scores_of_batch, lengths, (edits, blocks), advance)

    def _in_batches(
        self,
        work: Callable[..., list[Result]],
        lengths: Sequence[int],
        columns: Sequence[Sequence[Any]],
        advance: Advance | None,
    ) -> list[Result]:
        """The results of `work`, in the order of the rows, which it is given in batches of like length."""
        batches = list(batches_of_like_length(lengths))
        calls = ([[column[row] for row in batch] for column in columns] for batch in batches)
        results: dict[int, Result] = {}
        for batch, rows in zip(batches, self._each(work, calls), strict=True):
            results.update(zip(batch, rows, strict=True))
            if advance is not None:
                advance(len(batch))
        return [results[row] for row in range(len(lengths))]

    def _each(
        self, work: Callable[..., list[Result]], calls: Iterable[Sequence[Any]]
    ) -> Iterable[list[Result]]:
        """The result of `work` for the arguments of each call, in order."""
        return (work(*arguments) for arguments in calls)

    def answers_of_batch(
        self, prompts: Sequence[Sequence[int]], blocks: Sequence[str | None], max_new_tokens: Sequence[int]
    ) -> list[str]:
        """The answers to prompts that are asked together; one that has less room than the longest answer
        needs is asked alone, as far as it can go on."""
        steps = max(max_new_tokens)
        room = [room_after(self.base, len(prompt)) for prompt in prompts]
        roomy = [row for row in range(len(prompts)) if room[row] >= steps]
        alone = [[row] for row in range(len(prompts)) if room[row] < steps]
        answers = [""] * len(prompts)
        for part in [roomy, *alone] if roomy else alone:
            limit = min(steps, *(room[row] for row in part))
            with torch.no_grad(), self.routed.using([blocks[row] for row in part]):
                written = self._write([prompts[row] for row in part], limit)
            for row, ids in zip(part, written, strict=True):
                answers[row] = self.encoder.text(ids[: max_new_tokens[row]])
        return answers

    def scores_of_batch(
        self, edits: Sequence[EncodedEdit], blocks: Sequence[str | None]
    ) -> list[TokenScores]:
        """The scores of targets that are scored together."""
        with torch.no_grad(), self.routed.using(list(blocks)):
            return self._score(edits)

    def _write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        if self.base.kind is not ModelKind.CLASSIFIER:
            return write_greedily(self.base, prompts, max_new_tokens)
        logits = self.base.model(**pad_prompts(self.base, prompts)).logits
        return [[int(choice)] for choice in logits.argmax(-1)]

    def _score(self, edits: Sequence[EncodedEdit]) -> list[TokenScores]:
        batch = target_batch(self.base, edits)
        logits = target_logits(self.base, batch)
        known = batch.targets != IGNORED
        tokens = batch.targets.masked_fill(~known, 0)
        chosen = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        text = known & (batch.targets != self.base.special.stop) if self.base.kind.generates else known
        choices = logits.argmax(-1)
        rows = zip(
            (chosen * text).sum(-1).tolist(),
            text.sum(-1).tolist(),
            (tuple(row[mask].tolist()) for row, mask in zip(choices, known, strict=True)),
            ((choices == tokens) & known).sum(-1).tolist(),
            strict=True,
        )
        return [TokenScores(*row) for row in rows]


def perplexity(scores: Sequence[TokenScores]) -> float | None:
    """Token-weighted perplexity: exp of the mean negative log-likelihood a token over all texts together.

    Args:
        scores: teacher-forced scores, whose log-likelihoods are in nats.

    Returns:
        The perplexity; None without tokens, infinity where it exceeds a float.
    """
    tokens = sum(score.tokens for score in scores)
    if not tokens:
        return None
    nats = -sum(score.log_likelihood for score in scores) / tokens
    return math.exp(nats) if nats < _MOST_NATS else math.inf


def same_answer(answer: str, target: str, aliases: Sequence[str] = ()) -> bool:
    """Exact match with the target or another answer that counts as right, white space aside."""
    return any(answer.split() == text.split() for text in (target, *aliases))


def batches_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Split rows into batches of like length: at most 32 rows and, padding counted, 8192 tokens.

    Args:
        lengths: tokens of each row.

    Returns:
        Lists of row indices, shortest rows first.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) == _ROWS or (len(batch) + 1) * lengths[index] > _TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
