"""Chat templates: the day that some of them write, and the token that closes an answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

# transformers gives templates this function of the clock; the known ones call it with a format in quotes.
_TODAY = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
_CLOCK = "strftime_now"


def writes_the_day(template: object) -> bool:
    """Whether a chat template writes the day on which it is used (Llama 3.2, SmolLM3, Granite)."""
    return any(_CLOCK in text for text in _texts(template))


def on_day(template: Any, day: date) -> Any:
    """A chat template, or a mapping of several by name, that writes one and the same day for ever.

    A prompt would have other tokens tomorrow, and a block was trained on today's.
    """
    if isinstance(template, dict):
        return {name: on_day(text, day) for name, text in template.items()}
    # The day as a string literal of Jinja, with quotes and backslashes of its own escaped.
    return _TODAY.sub(lambda match: repr(day.strftime(match["format"])), template)


def closing_token(tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> int | None:
    """Which of `stops` the chat template puts behind an answer; None where it puts none of them there."""
    if not tokenizer.chat_template:
        return None
    answer = "melo"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    written = str(tokenizer.apply_chat_template(messages, tokenize=False))
    _, _, behind = written.rpartition(answer)
    ids = tokenizer(behind, add_special_tokens=False).input_ids
    return next((token for token in ids if token in stops), None)


def _texts(template: object) -> list[str]:
    if isinstance(template, dict):
        return [str(text) for text in template.values()]
    return [template] if isinstance(template, str) else []
