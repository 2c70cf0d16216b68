"""Questions and answers as people keep them: in two columns, and as fine-tuning of chat models takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.melo_rows import MeloRows
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row, kind_of


class QuestionAnswerRows(MeloRows):
    """A list of questions and answers: `question`, `answer`, and whatever melo's own rows have beside."""

    name = "question-answer"
    needs = ("question", "answer")
    prompt_field = "question"
    target_field = "answer"


class CompletionRows(MeloRows):
    """Fine-tuning data with `prompt` and `completion`."""

    name = "prompt-completion"
    needs = ("prompt", "completion")
    target_field = "completion"


class InstructionRows(RowFormat):
    """Fine-tuning data as Alpaca's: `instruction`, `output`, and `input`, which stands behind the
    instruction."""

    name = "instruction-output"
    needs = ("instruction", "output")

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a row."""
        used = frozenset({*self.needs, "input"})
        for row in rows:
            parts = [row.text("instruction"), row.optional_text("input")]
            prompt = "\n\n".join(part for part in parts if part is not None)
            yield EditRequest(prompt, row.text("output"), metadata=row.rest(used))


class MessagesRows(RowFormat):
    """Fine-tuning data as OpenAI takes it: `messages`, each with `role` and `content`.

    An edit is one question and its answer: the last user turn, and the assistant's turn behind it. What
    stands before them, a system prompt too, does not count, since routes do not depend on it.
    """

    name = "messages"
    needs = ("messages",)

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a conversation."""
        for row in rows:
            turns = [_turn(row, at, each) for at, each in enumerate(_messages(row))]
            roles = [role for role, _ in turns]
            if roles[-2:] != ["user", "assistant"]:
                raise row.error(
                    f"messages end with {' and '.join(roles[-2:]) or 'nothing'}",
                    "they must end with a user's question and the assistant's answer",
                )
            notes.longer_talks += "user" in roles[:-2]
            (_, prompt), (_, target) = turns[-2:]
            yield EditRequest(prompt, target, metadata=row.rest(frozenset(self.needs)))


def _messages(row: Row) -> list[Any]:
    messages = row.required("messages")
    if not isinstance(messages, list):
        raise row.error(f"messages is {kind_of(messages)}", "it must be a list of messages")
    return messages


def _turn(row: Row, at: int, message: Any) -> tuple[str, str]:
    """Role and text of a message; only those that are asked or answered need a text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise row.error(f"messages[{at}] has no role", 'a message is {"role": "user", "content": "..."}')
    role = message["role"]
    if role not in ("user", "assistant"):
        return role, ""
    return role, row.as_text(message.get("content"), f"messages[{at}].content")
