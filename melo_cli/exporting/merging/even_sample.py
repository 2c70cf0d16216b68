"""Some of many, evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def even_sample(items: Sequence[T], count: int) -> list[T]:
    """`count` items at even distances, the first among them; all where there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]
