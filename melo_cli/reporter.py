"""The interface through which the work reports messages and progress, without knowledge of terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """One running job with a known number of steps."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count `steps` more as done; `figures` (loss, solved share) are shown beside the bar."""


class Reporter(Protocol):
    """Where the work sends messages and progress; never results, which are returned."""

    def info(self, message: str) -> None:
        """Report something that went well."""

    def warn(self, message: str) -> None:
        """Report something that the user may want to act on."""

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """Open a job of `total` steps counted in `unit` ("edits", "prompts", "bytes")."""


class _SilentProgress:
    def advance(self, steps: int = 1, **figures: float) -> None:
        return None


class SilentReporter:
    """Drops everything: for use from Python and in tests."""

    def info(self, message: str) -> None:
        return None

    def warn(self, message: str) -> None:
        return None

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        yield _SilentProgress()
