"""One edit as it is asked for, before any model has seen it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TARGET_ALIASES = "target_aliases"
"""The key of an edit's metadata under which its aliases are kept."""


class Number(str):
    """An answer that the data give as a whole number: its text to a model that writes.

    To a classifier it is the id of a class, whatever the classes are named.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class EditRequest:
    """A requested edit.

    Attributes:
        prompt: what is asked; never empty.
        target: the answer wanted; a class id or name for classification; never empty.
        rephrases: the same question in other words, none of them the prompt itself.
        locality: unrelated prompts with their true answers, None where the answer is not known.
        subject: what the edit is about.
        metadata: whatever else the row held, as JSON values.
        aliases: other answers that count as right, none of them the target.
    """

    prompt: str
    target: str
    rephrases: tuple[str, ...] = ()
    locality: tuple[tuple[str, str | None], ...] = ()
    subject: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def kept_metadata(self) -> dict[str, Any]:
        """The metadata for the store, which has no other field for aliases."""
        return {**self.metadata, TARGET_ALIASES: list(self.aliases)} if self.aliases else self.metadata


def aliases_in(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The aliases that `kept_metadata` has put there."""
    value = metadata.get(TARGET_ALIASES)
    texts = value if isinstance(value, list) else []
    return tuple(text for text in texts if isinstance(text, str) and text.strip())
