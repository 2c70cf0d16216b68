"""The requests of OpenAI's API that are understood."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

_Text = Annotated[str, StringConstraints(min_length=1)]
_Tokens = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1)]
MOST_LOGPROBS = 20


class StreamOptions(BaseModel):
    """What a stream sends besides the answer."""

    include_usage: bool = False


class _Request(BaseModel):
    """The fields that both kinds of requests have; others are kept, for an upstream that knows them."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=128)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=-1)
    ignore_eos: bool = False
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    user: str | None = None

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if stop is not None and "" in ([stop] if isinstance(stop, str) else stop):
            raise ValueError("an empty text stops nothing")
        return stop

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def choices(self) -> int:
        """How many answers are wanted for each prompt."""
        return self.n or 1


class CompletionRequest(_Request):
    """The body of `POST /v1/completions`."""

    prompt: (
        _Text
        | Annotated[list[_Text], Field(min_length=1)]
        | _Tokens
        | Annotated[list[_Tokens], Field(min_length=1)]
    )
    max_tokens: int | None = Field(None, ge=1)
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: _Text
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str | None:
        """What it says, if it is text alone."""
        if not isinstance(self.content, list):
            return self.content
        parts = [part.get("text") for part in self.content if part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(self.content) else None


class ChatCompletionRequest(_Request):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def asked(self) -> str | None:
        """The text of the last user turn; None if there is none or it is not text alone."""
        turns = [message for message in self.messages if message.role == "user"]
        return turns[-1].text if turns else None


class EditBody(BaseModel):
    """The body of `POST /melo/edits`."""

    model_config = ConfigDict(extra="forbid")

    prompt: _Text
    target: _Text
    subject: _Text | None = None
    rephrases: list[_Text] = []
    locality: list[_Text] = []


class RevertBody(BaseModel):
    """The body of `POST /melo/revert`."""

    model_config = ConfigDict(extra="forbid")

    edits: list[_Text] = Field(min_length=1)


class AskBody(BaseModel):
    """The body of `POST /melo/ask`."""

    model_config = ConfigDict(extra="forbid")

    prompt: _Text
    max_tokens: int = Field(128, ge=1)
