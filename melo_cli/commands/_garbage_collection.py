"""Python's garbage collection is off while a command starts and when its process ends.

torch, transformers and a base model are a million objects, and all live until the command ends. The garbage
collector would visit them many times while they are made, and once more when the process ends. Measured on
`melo query` with a T5 of 8M parameters: 5.8 s of processor time with this policy, 7.8 s without it (medians
of 5 turns; the ranges do not overlap).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Turn garbage collection off for the rest of the process; `collect_from_here` turns it on again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()


def collect_from_here() -> None:
    """Turn garbage collection on for objects made from now on, in commands that may run for hours."""
    gc.freeze()
    gc.enable()
