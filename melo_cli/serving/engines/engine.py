"""The interface of engines: a routed prompt in, choices of OpenAI's API out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from melo_cli.scope.core.rules import Route
from melo_cli.serving.openai_schema import ChatCompletionRequest, ChatMessage, CompletionRequest
from melo_store.records import Block

Prompt: TypeAlias = str | Sequence[int] | Sequence[ChatMessage]
"""A text, tokens, or the messages of a conversation."""


@dataclass(frozen=True)
class Routed:
    """The route of a prompt.

    Attributes:
        route: which edit answers, and which came nearest.
        block: the block of the edit that answers; None for the base model.
        facts: what stands with the prompt: the facts of the edits that `route` tells.
    """

    route: Route
    block: Block | None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One prompt of a request.

    Attributes:
        request: the request, for its settings.
        prompt: the prompt; messages if it is a chat.
        routed: its route.
    """

    request: CompletionRequest | ChatCompletionRequest
    prompt: Prompt
    routed: Routed


@dataclass(frozen=True)
class Answer:
    """Choices of one prompt, or of a stream what came last of them.

    Attributes:
        choices: `choices` of OpenAI's API, numbered from 0.
        usage: `usage` of OpenAI's API; None until it is known.
    """

    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


class Engine(Protocol):
    """Answers prompts whose route is known."""

    @property
    def model_name(self) -> str:
        """The name under which clients know the model."""

    async def start(self) -> None:
        """Get ready to answer."""

    async def stop(self) -> None:
        """Let go of what is held."""

    async def is_ready(self) -> bool:
        """Whether it answers now."""

    async def answer(self, question: Question) -> Answer:
        """The whole answer.

        Raises:
            ApiError: the request does not fit, or the engine fails.
        """

    def stream(self, question: Question) -> AsyncIterator[Answer]:
        """The answer piece by piece; closing the iterator stops it.

        Raises:
            ApiError: as `answer`.
        """
