"""The endpoints of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, aclosing
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from melo_cli.serving.engines.engine import Answer, Prompt, Question
from melo_cli.serving.errors import ApiError
from melo_cli.serving.open_requests import question
from melo_cli.serving.openai_schema import ChatCompletionRequest, CompletionRequest
from melo_cli.serving.server import Server, route_name

_T = TypeVar("_T")
ROUTE_HEADER = "x-melo-route"


def openai_router(server: Server) -> APIRouter:
    """`/v1/models`, `/v1/completions` and `/v1/chat/completions`."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    api = _OpenAiApi(server)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """List the one model that is served."""
        return {"object": "list", "data": [api.model()]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe the model that is served."""
        api.require_model(name)
        return api.model()

    @router.post("/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Go on with prompts, as they stand: no chat template is put around them."""
        texts = [each if isinstance(each, str) else None for each in body.prompts]
        turns = [server.routes.last_turn(text) if text is not None else None for text in texts]
        return await api.respond(request, body, body.prompts, turns)

    @router.post("/chat/completions")
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        """Answer a conversation; its last user turn is what is routed."""
        return await api.respond(request, body, [body.messages], [body.asked])

    return router


class _OpenAiApi:
    """Answers requests: the prompts of one are routed and asked one by one, and put together again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._started = int(time.time())

    def model(self) -> dict[str, Any]:
        """The model as `/v1/models` describes it."""
        name = self._server.engine.model_name
        return {"id": name, "object": "model", "created": self._started, "owned_by": "melo"}

    def require_model(self, name: str | None) -> None:
        """Refuse another model's name.

        Raises:
            ApiError: it is not the one that is served.
        """
        served = self._server.engine.model_name
        if name is not None and name != served:
            raise ApiError(
                404,
                f"the model {name!r} is not served here; use {served!r}",
                param="model",
                code="model_not_found",
            )

    async def respond(
        self,
        request: Request,
        body: CompletionRequest | ChatCompletionRequest,
        prompts: Sequence[Prompt],
        texts: Sequence[str | None],
    ) -> Response:
        """Answer one request.

        Args:
            texts: what each prompt is routed by; None leads to the base model.
        """
        self.require_model(body.model)
        limit = self._server.limits.prompts
        if len(prompts) * body.choices > limit:
            raise ApiError(400, f"a request may ask for at most {limit} answers on this server")
        with ExitStack() as held:
            held.enter_context(self._server.admitted(request.url.path))
            if body.stream:
                return await self._streamed(body, prompts, texts, held)
            async with self._server.in_time():
                questions = await self._routed(body, prompts, texts)
                answers = await _unless_gone(request, _gathered(self._server.engine.answer, questions))
        document = self._envelope(body) | _together(answers, body.choices)
        self._count(document["usage"])
        return JSONResponse(document, headers=self._headers(questions))

    async def _streamed(
        self,
        body: CompletionRequest | ChatCompletionRequest,
        prompts: Sequence[Prompt],
        texts: Sequence[str | None],
        held: ExitStack,
    ) -> Response:
        async with self._server.in_time():
            questions = await self._routed(body, prompts, texts)
            pieces = self._pieces(body, questions)
            try:
                # The first piece decides the status; an error after it can only be sent within the stream.
                first = await anext(pieces)
            except BaseException:
                await pieces.aclose()
                raise

        async def events() -> AsyncIterator[str]:
            yield _event(first)
            try:
                async with self._server.in_time():
                    async for piece in pieces:
                        yield _event(piece)
                yield "data: [DONE]\n\n"
            except ApiError as error:
                yield _event(error.document())

        return _EventStream(events(), pieces, held.pop_all(), self._headers(questions))

    async def _routed(
        self,
        body: CompletionRequest | ChatCompletionRequest,
        prompts: Sequence[Prompt],
        texts: Sequence[str | None],
    ) -> list[Question]:
        routed = await asyncio.gather(*(self._server.routed(text) for text in texts))
        return [question(body, prompt, each) for prompt, each in zip(prompts, routed, strict=True)]

    async def _pieces(
        self, body: CompletionRequest | ChatCompletionRequest, questions: Sequence[Question]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The pieces of a stream, those of all prompts as they come, then the usage if it is asked for."""
        envelope = self._envelope(body)
        usages: list[Answer] = []
        async with aclosing(_merged([self._server.engine.stream(each) for each in questions])) as merged:
            async for index, part in merged:
                if part.usage is not None:
                    usages.append(part)
                if part.choices:
                    yield envelope | {"choices": _numbered(part, index * body.choices)}
        total = _together(usages, body.choices)["usage"]
        self._count(total)
        if body.stream_options is not None and body.stream_options.include_usage:
            yield envelope | {"choices": [], "usage": total}

    def _envelope(self, body: CompletionRequest | ChatCompletionRequest) -> dict[str, Any]:
        chat = isinstance(body, ChatCompletionRequest)
        kind = (
            "text_completion" if not chat else "chat.completion.chunk" if body.stream else "chat.completion"
        )
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self._server.engine.model_name,
        }

    def _headers(self, questions: Sequence[Question]) -> dict[str, str]:
        if not self._server.shows_route:
            return {}
        return {ROUTE_HEADER: ", ".join(route_name(each.routed.route) for each in questions)}

    def _count(self, usage: dict[str, Any]) -> None:
        self._server.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self._server.metrics.tokens.labels("completion").inc(usage["completion_tokens"])


class _EventStream(StreamingResponse):
    """Server-sent events; when they end, or the client hangs up, what they hold is let go."""

    def __init__(
        self,
        events: AsyncIterator[str],
        pieces: AsyncGenerator[dict[str, Any], None],
        held: ExitStack,
        headers: dict[str, str],
    ) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={**headers, "Cache-Control": "no-cache"}
        )
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._pieces.aclose()


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _numbered(answer: Answer, first: int) -> list[dict[str, Any]]:
    return [{**choice, "index": first + choice["index"]} for choice in answer.choices]


def _together(answers: Sequence[Answer], choices: int) -> dict[str, Any]:
    """The choices of all prompts in order, and what they used together."""
    used = [answer.usage or {} for answer in answers]
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {
        "choices": [choice for at, each in enumerate(answers) for choice in _numbered(each, at * choices)],
        "usage": {name: sum(usage.get(name) or 0 for usage in used) for name in names},
    }


async def _gathered(
    ask: Callable[[Question], Coroutine[Any, Any, Answer]], questions: Sequence[Question]
) -> list[Answer]:
    """The answers of all prompts; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(question)) for question in questions]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of work that is ended when the client hangs up.

    Raises:
        ApiError: nobody waits for the answer any more.
    """
    task = asyncio.ensure_future(work)
    hang_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((task, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client hung up")
        return task.result()
    finally:
        hang_up.cancel()
        task.cancel()
        await asyncio.gather(task, hang_up, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _merged(
    streams: Sequence[AsyncIterator[Answer]],
) -> AsyncGenerator[tuple[int, Answer], None]:
    """What several streams give, as it comes, each with the number of its stream."""
    queue: asyncio.Queue[tuple[int, Answer | Exception | None]] = asyncio.Queue()

    async def forward(index: int, stream: AsyncIterator[Answer]) -> None:
        try:
            async for part in stream:
                queue.put_nowait((index, part))
            queue.put_nowait((index, None))
        except Exception as error:  # noqa: BLE001  it is raised where the stream is read
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(forward(index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            index, part = await queue.get()
            if isinstance(part, Exception):
                raise part
            if part is None:
                left -= 1
            else:
                yield index, part
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
