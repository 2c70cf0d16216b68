"""What a conversation asks: its last user turn, found in messages or in the tokens of the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

_FIRST, _REPLY, _SECOND = "first-question", "the-answer", "second-question"


class LastUserTurn:
    """Finds the text that the user asked last in encoded prompts.

    What stands around a user's turn is taken from the template itself: the text between two marked messages.

    Args:
        tokenizer: transformers' tokenizer; without a chat template every prompt is asked as a whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def text(self, ids: Sequence[int]) -> str:
        """The last user turn of a prompt's tokens; the whole prompt, where it is no conversation."""
        turn = self._last_turn(ids)
        return self._decode(ids, special=False).strip() if turn is None else turn

    def within(self, text: str) -> str:
        """The last user turn of a text that the chat template has written; any other text as it is."""
        turn = self._last_turn(self._encode(text)) if self._around is not None else None
        return text if turn is None else turn

    def _last_turn(self, ids: Sequence[int]) -> str | None:
        if self._around is None:
            return None
        opening, closing = self._around
        written = self._decode(ids, special=True)
        start = written.rfind(opening)
        if start < 0:
            return None
        turn = written[start + len(opening) :]
        end = turn.find(closing)
        return turn[:end].strip() if end >= 0 else turn.strip()

    @cached_property
    def _around(self) -> tuple[str, str] | None:
        """What the template writes right before and right behind a user's turn."""
        if not self._tokenizer.chat_template:
            return None
        messages = [
            {"role": "user", "content": _FIRST},
            {"role": "assistant", "content": _REPLY},
            {"role": "user", "content": _SECOND},
        ]
        whole, alone = self._write(messages), self._write(messages[:1])
        answered = self._write(messages, add_generation_prompt=True)
        if not all(mark in whole for mark in (_FIRST, _REPLY, _SECOND)) or _FIRST not in alone:
            return None
        between = whole[whole.index(_REPLY) + len(_REPLY) : whole.index(_SECOND)]
        opening = _common_end(between, alone[: alone.index(_FIRST)])
        behind = whole[whole.index(_FIRST) + len(_FIRST) : whole.index(_REPLY)]
        # Some templates end a turn by nothing but a line: there the answer's beginning closes it.
        ends = (
            _common_start(behind, text[text.index(_SECOND) + len(_SECOND) :]) for text in (whole, answered)
        )
        closing = next((end for end in ends if end.strip()), "")
        # As the tokenizer itself writes them: it may write a space less, or one more.
        written = [self._decode(self._encode(part), special=True) for part in (opening, closing)]
        return (written[0], written[1]) if all(part.strip() for part in written) else None

    def _write(self, messages: list[dict[str, str]], **options: bool) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _decode(self, ids: Sequence[int], *, special: bool) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
        )


def last_user_text(messages: Sequence[Any]) -> str | None:
    """The content of the last `{"role": "user", "content": TEXT}`; None where there is no such text."""
    asked = [
        each.get("content") for each in messages if isinstance(each, dict) and each.get("role") == "user"
    ]
    return asked[-1] if asked and isinstance(asked[-1], str) else None


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    return one[len(one) - length :]


def _common_start(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]
