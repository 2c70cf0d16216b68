"""The text of an answer while its tokens come, up to the first stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from melo_cli.runtime.streaming import GrowingText


class AnswerText:
    """Gives out an answer's text in pieces that later tokens do not change.

    Args:
        decode: the text of tokens.
        stops: texts that end the answer, and are no part of it.
        piecewise: whether pieces are wanted as they come; else all is given out at the end, which spares
            decoding the answer anew with each token.

    Attributes:
        stopped: whether a stop text has come.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Sequence[str], *, piecewise: bool
    ) -> None:
        self._growing = GrowingText(decode)
        self._stops = stops
        self._follows = piecewise or bool(stops)
        self._unread: list[int] = []
        self._given = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain after one more token, as far as it was not given before."""
        if not self._follows:
            self._unread.append(token)
            return ""
        sure = self._growing.add([token])
        found = [at for stop in self._stops if (at := self._growing.whole.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._give(self._growing.whole[: min(found)])
        return self._give(sure[: len(sure) - self._begun_stop(sure)])

    def end(self) -> str:
        """What is left to give when no token comes any more."""
        self._growing.add(self._unread)  # none, where pieces were given out
        return "" if self.stopped else self._give(self._growing.whole)

    def _begun_stop(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        lengths = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)

    def _give(self, text: str) -> str:
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece
