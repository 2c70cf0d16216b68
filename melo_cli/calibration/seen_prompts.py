"""Which prompts calibration looked at: what it saw, evaluation does not measure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from melo_cli.paraphrase.subject_swaps import normalized
from melo_store.records import KeyMap

_DIGITS = 16


class SeenPrompts:
    """The prompts that the calibration of a project saw, by digest.

    Args:
        key_map: the project's; nothing was seen where it has none.
    """

    def __init__(self, key_map: KeyMap | None) -> None:
        listed = key_map.settings.get("seen") if key_map is not None else None
        self._digests = {str(each) for each in listed} if isinstance(listed, list) else set()

    def __call__(self, prompt: str) -> bool:
        """Whether calibration saw a prompt; case and white space do not count."""
        return _digest(prompt) in self._digests


def digests(prompts: Iterable[str]) -> list[str]:
    """What a key map keeps of the prompts that calibration saw."""
    return sorted({_digest(prompt) for prompt in prompts})


def _digest(prompt: str) -> str:
    return hashlib.sha256(normalized(prompt).encode("utf-8")).hexdigest()[:_DIGITS]
