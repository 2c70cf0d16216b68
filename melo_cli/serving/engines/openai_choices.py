"""Choices, log probabilities and usage in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from melo_cli.serving.engines.sequences import Chosen

TokenText = Callable[[int], str]


def completion_choice(index: int, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
    """A choice of `/v1/completions`, whole or a piece of a stream."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def chat_choice(index: int, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
    """A choice of `/v1/chat/completions`."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


def chat_piece(index: int, text: str, reason: str | None, logprobs: Any, *, first: bool) -> dict[str, Any]:
    """A piece of a choice of `/v1/chat/completions` that is streamed."""
    delta = {"role": "assistant", "content": text} if first else {"content": text} if text else {}
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def completion_logprobs(tokens: Sequence[Chosen], text_of: TokenText, start: int = 0) -> dict[str, Any]:
    """`logprobs` of `/v1/completions`.

    Args:
        start: where in the answer the text of the first token begins.
    """
    texts = [text_of(token.token) for token in tokens]
    offsets = [start + sum(map(len, texts[:at])) for at in range(len(texts))]
    top = [{text_of(token): logprob for token, logprob in each.top} for each in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": top,
        "text_offset": offsets,
    }


def chat_logprobs(tokens: Sequence[Chosen], text_of: TokenText) -> dict[str, Any]:
    """`logprobs` of `/v1/chat/completions`."""

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        text = text_of(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

    return {
        "content": [
            {
                **entry(each.token, each.logprob),
                "top_logprobs": [entry(token, logprob) for token, logprob in each.top],
            }
            for each in tokens
        ],
        "refusal": None,
    }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """`usage` of OpenAI's API."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
