"""Ctrl-C in a long run: the first stops it at the next safe point, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STDERR = 2
_NOTICE = b"\nmelo: stopping after the batch in hand; press Ctrl-C again to abort at once\n"


class StopRequest:
    """Whether the user has asked the run to stop.

    Attributes:
        made: whether they have.
        repeated: whether they have asked a second time, not to wait for the safe point.
    """

    def __init__(self) -> None:
        self.made = False
        self.repeated = False

    def __call__(self) -> bool:
        return self.made


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Within it the first Ctrl-C makes the request, and the second raises KeyboardInterrupt.

    A library that is interrupted may raise an error of its own in its place: that is KeyboardInterrupt too.
    """
    request = StopRequest()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if request.made:
            request.repeated = True
            raise KeyboardInterrupt
        request.made = True
        # Straight to the descriptor: a handler may run in the middle of a write to sys.stderr.
        os.write(_STDERR, _NOTICE)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield request
    except Exception as error:
        if request.repeated:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
