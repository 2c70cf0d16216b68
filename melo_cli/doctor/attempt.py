"""Calls what may fail in any way, and returns the reason of a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """What `work` gives, or in one line what it raised."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  a library that is broken on a machine may raise anything
        message = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {message}" if message else type(error).__name__
