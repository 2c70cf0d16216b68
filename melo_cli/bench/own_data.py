"""What a bench asks beside the public sets: the files of `data/bench/`, written for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melo_cli.models.encoding import Message

SHIPPED_PACKAGE = "shipped_bench"
"""The folder of an installed melo_cli that holds the files of `data/bench/`."""


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with several answers, of which one is right.

    Attributes:
        question: what is asked.
        choices: the answers, of similar length.
        answer: index of the right one.
    """

    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Translation:
    """The question of an edit in another language.

    Attributes:
        prompt: the edit's prompt, in English.
        language: ISO 639-1 code: `de`, `fr` or `es`.
        question: the same question in that language.
    """

    prompt: str
    language: str
    question: str


def held_out_text() -> list[str]:
    """Paragraphs of general prose that no edit is about."""
    return _path("held_out.txt").read_text(encoding="utf-8").splitlines()


def choice_questions() -> list[ChoiceQuestion]:
    """Easy questions of common sense, word meaning, facts, arithmetic and grammar."""
    return [
        ChoiceQuestion(row["question"], tuple(row["choices"]), row["answer"])
        for row in _rows("choices.jsonl")
    ]


def small_talk() -> list[Message]:
    """Turns of user and assistant about nothing that is edited, to stand before a question."""
    return _rows("small_talk.jsonl")


def translations() -> list[Translation]:
    """The questions of `data/quickstart/edits.jsonl` in other languages."""
    return [Translation(**row) for row in _rows("languages.jsonl")]


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _path(name).read_text(encoding="utf-8").splitlines()]


def _path(name: str) -> Path:
    """A wheel carries the files in the package; a checkout and an editable install, beside it."""
    here = Path(__file__).resolve().parents[1]
    shipped = here / SHIPPED_PACKAGE / name
    return shipped if shipped.is_file() else here.parent / "data" / "bench" / name
