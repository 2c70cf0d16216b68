"""The engine inside this process: the routed model, with rows of every edit and of none in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from melo_cli.errors import MeloError
from melo_cli.models.encoding import Message
from melo_cli.runtime.greedy import room_after
from melo_cli.runtime.loading import OpenProject
from melo_cli.serving.engines.answer_text import AnswerText
from melo_cli.serving.engines.answering_thread import AnsweringThread
from melo_cli.serving.engines.engine import Answer, Prompt, Question
from melo_cli.serving.engines.openai_choices import (
    chat_choice,
    chat_logprobs,
    chat_piece,
    completion_choice,
    completion_logprobs,
    usage,
)
from melo_cli.serving.engines.sequences import Chosen, Event, Finished, RunningSequence, Sampling
from melo_cli.serving.errors import ApiError
from melo_cli.serving.openai_schema import ChatCompletionRequest, ChatMessage, CompletionRequest

_COMPLETION_TOKENS = 16
"""Longest answer of `/v1/completions` where the request does not say: OpenAI's default."""
_UNSUPPORTED = (
    "tools",
    "response_format",
    "logit_bias",
    "suffix",
    "echo",
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "functions",
    "modalities",
)


@dataclass
class _Choice:
    """One of the answers to a prompt.

    Attributes:
        reason: why it ended; None until then.
        pending: tokens that came since the last piece of text.
    """

    index: int
    sequence: RunningSequence
    text: AnswerText
    reason: str | None = None
    pending: list[Chosen] = field(default_factory=list)


class InsideEngine:
    """Answers with the model of this process.

    Args:
        opened: a project whose model no other thread uses.
        model_name: the name under which clients know the model.
        rows: most answers that are written together.
        max_tokens: longest answer that a request may ask for.
        threads: threads that torch writes with.

    Raises:
        ModelError: answers of this model cannot be written together.
    """

    def __init__(
        self, opened: OpenProject, model_name: str, *, rows: int, max_tokens: int, threads: int
    ) -> None:
        self._encoder = opened.encoder
        self._base = opened.routed.base
        self._name = model_name
        self._most = max_tokens
        self._thread = AnsweringThread(opened, rows, threads)

    @property
    def model_name(self) -> str:
        return self._name

    async def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._thread.stop)

    async def is_ready(self) -> bool:
        return self._thread.is_alive

    async def answer(self, question: Question) -> Answer:
        chat = isinstance(question.request, ChatCompletionRequest)
        texts: dict[int, str] = {}
        tokens: dict[int, list[Chosen]] = {}
        reasons: dict[int, str | None] = {}
        written = 0
        prompt = self._encoded(question)
        async for choice, piece in self._pieces(question, prompt):
            texts[choice.index] = texts.get(choice.index, "") + piece
            tokens.setdefault(choice.index, []).extend(choice.pending)
            reasons[choice.index] = choice.reason
            written += len(choice.pending)
        make = chat_choice if chat else completion_choice
        choices = [
            make(index, texts[index], reasons[index], self._logprobs(question, tokens[index]))
            for index in sorted(texts)
        ]
        return Answer(choices, usage(len(prompt), written))

    async def stream(self, question: Question) -> AsyncIterator[Answer]:
        started: dict[int, int] = {}
        written = 0
        prompt = self._encoded(question)
        async for choice, piece in self._pieces(question, prompt):
            written += len(choice.pending)
            if not piece and choice.reason is None and choice.index in started:
                continue
            logprobs = self._logprobs(question, choice.pending, started.get(choice.index, 0))
            if isinstance(question.request, ChatCompletionRequest):
                first = choice.index not in started
                part = chat_piece(choice.index, piece, choice.reason, logprobs, first=first)
            else:
                part = completion_choice(choice.index, piece, choice.reason, logprobs)
            started[choice.index] = started.get(choice.index, 0) + len(piece)
            yield Answer([part])
        yield Answer([], usage(len(prompt), written))

    async def _pieces(self, question: Question, prompt: Sequence[int]) -> AsyncIterator[tuple[_Choice, str]]:
        """What is written of all choices, as it comes; `pending` holds the tokens of each piece."""
        request = question.request
        sampling = self._sampling(request, len(prompt))
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        choices = []
        for index in range(request.choices):

            def emit(event: Event, index: int = index) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                    loop.call_soon_threadsafe(events.put_nowait, (index, event))

            own = sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)
            sequence = RunningSequence(prompt, question.routed.block, own, emit)
            choices.append(
                _Choice(index, sequence, AnswerText(self._decoded, request.stops, piecewise=request.stream))
            )
        try:
            for choice in choices:
                self._thread.submit(choice.sequence)
            while any(choice.reason is None for choice in choices):
                index, event = await events.get()
                choice = choices[index]
                if choice.reason is not None:
                    continue
                piece = _take(choice, event)
                yield choice, piece
                choice.pending = []
        finally:
            for choice in choices:
                choice.sequence.cancel()

    def _sampling(self, request: CompletionRequest | ChatCompletionRequest, length: int) -> Sampling:
        self._refuse_unsupported(request)
        room = room_after(self._base, length)
        if isinstance(request, ChatCompletionRequest):
            wanted = request.max_completion_tokens or request.max_tokens
            logprobs = (request.top_logprobs or 0) if request.logprobs else None
        else:
            wanted = request.max_tokens or _COMPLETION_TOKENS
            logprobs = request.logprobs
        if wanted is not None and wanted > self._most:
            raise ApiError(400, f"max_tokens may be at most {self._most} on this server", param="max_tokens")
        return Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=max(request.top_k or 0, 0),
            seed=request.seed,
            max_tokens=min(wanted or self._most, self._most, room),
            logprobs=logprobs,
            ends=not request.ignore_eos,
        )

    def _refuse_unsupported(self, request: CompletionRequest | ChatCompletionRequest) -> None:
        for name in _UNSUPPORTED:
            value = getattr(request, name, None)
            if value and value != {"type": "text"}:
                raise ApiError(
                    400, f"{name} is not supported by this server's own engine; use --upstream", param=name
                )

    def _encoded(self, question: Question) -> Sequence[int]:
        try:
            return self._tokens(question.prompt)
        except MeloError as error:
            raise ApiError(400, str(error)) from error

    def _tokens(self, prompt: Prompt) -> Sequence[int]:
        if isinstance(prompt, str):
            return self._encoder.plain_text(prompt)
        if prompt and isinstance(prompt[0], int):
            return self._encoder.known_tokens([token for token in prompt if isinstance(token, int)])
        messages = [_message(each) for each in prompt if isinstance(each, ChatMessage)]
        if [message["role"] for message in messages] == ["user"]:
            return self._encoder.prompt(messages[0]["content"])
        return self._encoder.conversation(messages)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._base.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _token_text(self, token: int) -> str:
        return str(self._base.tokenizer.decode([token]))

    def _logprobs(
        self, question: Question, tokens: Sequence[Chosen], start: int = 0
    ) -> dict[str, Any] | None:
        if isinstance(question.request, ChatCompletionRequest):
            return chat_logprobs(tokens, self._token_text) if question.request.logprobs else None
        if question.request.logprobs is None:
            return None
        return completion_logprobs(tokens, self._token_text, start)


def _message(message: ChatMessage) -> Message:
    text = message.text
    if text is None:
        raise ApiError(400, f"a message of {message.role} is not text alone", param="messages")
    return {"role": message.role, "content": text}


def _take(choice: _Choice, event: Event) -> str:
    """Take one event into a choice, and give out the text that is certain now.

    Raises:
        ApiError: the answer cannot be written.
    """
    if isinstance(event, Exception):
        raise ApiError(500, f"the model failed: {type(event).__name__}: {event}") from event
    if isinstance(event, Finished):
        choice.reason = event.reason
        return choice.text.end()
    choice.pending.append(event)
    piece = choice.text.add(event.token)
    if choice.text.stopped:
        choice.reason = "stop"
        choice.sequence.cancel()
    return piece
