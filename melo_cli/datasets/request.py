"""One edit as it is asked for, before any model has seen it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EditRequest:
    """What a user wants answered otherwise.

    Attributes:
        prompt: what is asked; never empty.
        target: the answer wanted; a class id or name for classification; never empty.
        rephrases: the same question in other words, none of them the prompt itself.
        locality: unrelated prompts with their true answers, None where the answer is not known.
        subject: what the edit is about.
        metadata: whatever else the row held, as JSON values.
    """

    prompt: str
    target: str
    rephrases: tuple[str, ...] = ()
    locality: tuple[tuple[str, str | None], ...] = ()
    subject: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
