"""Text that comes piece by piece, in lines that break between words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


class Wrapping:
    """Passes text on and begins a new line before a word that does not fit; a word waits for its end.

    Args:
        width: columns of a line; the terminal breaks a longer word.
        write: where the text goes.
    """

    def __init__(self, width: int, write: Callable[[str], None]) -> None:
        self._width = width
        self._write = write
        self._column = 0
        self._space = ""
        self._word = ""

    def add(self, text: str) -> None:
        """The next piece."""
        for character in text:
            if character == "\n":
                self.end()
            elif character.isspace():
                self._flush()
                self._space += character
            else:
                self._word += character
                # Scripts that are written without spaces break behind every character.
                if _columns(character) == 2:
                    self._flush()

    def end(self) -> None:
        """End the line."""
        self._flush()
        self._write("\n")
        self._column, self._space = 0, ""

    def _flush(self) -> None:
        """Write the word that is complete."""
        if not self._word:
            return
        width = sum(map(_columns, self._word))
        if self._column and self._column + len(self._space) + width > self._width:
            self._write("\n")
            self._column, self._space = 0, ""
        self._write(self._space + self._word)
        self._column += len(self._space) + width
        self._space = self._word = ""


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
