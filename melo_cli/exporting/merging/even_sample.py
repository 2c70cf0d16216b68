"""An even sample of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def even_sample(items: Sequence[T], count: int) -> list[T]:
    """`count` items at even distances, beginning with the first; all items if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
