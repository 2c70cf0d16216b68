"""The lines that somebody types at a terminal, or that a pipe brings."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Protocol

from melo_cli.errors import PromptError


class Lines(Protocol):
    """Where an interactive command reads its lines."""

    def next(self, prompt: str) -> str | None:
        """The next line without its end; None where there are no more.

        Raises:
            PromptError: it is not UTF-8.
        """


def line_of_stdin(line: bytes, number: int) -> str:
    """The text of a line, the first without the byte order mark that Windows may put before it.

    Args:
        number: counted from 1.

    Raises:
        PromptError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PromptError("it is not UTF-8", where=f"stdin:{number}", hint="save it as UTF-8") from error


class TypedLines:
    """Lines typed behind a prompt, edited with the keys of readline and called back with the arrows."""

    def __init__(self) -> None:
        with suppress(ImportError):  # a Python built without it reads lines all the same
            import readline  # noqa: F401  input() goes through it from now on

    def next(self, prompt: str) -> str | None:
        try:
            line = input(prompt)
            line.encode("utf-8")
        except EOFError:
            _end_line()
            return None
        except KeyboardInterrupt:
            _end_line()
            raise
        except UnicodeError as error:
            raise PromptError("it is not UTF-8", where="the line", hint="type it again") from error
        return line


class PipedLines:
    """The lines of stdin, without a prompt."""

    def __init__(self) -> None:
        self._read = 0

    def next(self, prompt: str) -> str | None:
        line = sys.stdin.buffer.readline()
        self._read += 1
        return line_of_stdin(line, self._read).rstrip("\r\n") if line else None


def _end_line() -> None:
    """What is shown next would stand behind our prompt."""
    sys.stdout.write("\n")
    sys.stdout.flush()
