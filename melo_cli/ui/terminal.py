"""Everything that melo prints, in its three forms: for people at a terminal, for pipes, and as JSON.

Results go to stdout; messages and progress go to stderr. Text from data and models is made harmless first:
a control character in an answer must not reach the terminal.
"""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from melo_cli.errors import MeloError
from melo_cli.reporter import Progress
from melo_cli.ui.elements import Block, Pace, Table
from melo_cli.ui.text import printable

if TYPE_CHECKING:
    from melo_cli.ui.rich_renderer import Drawing

# Seconds between two lines of progress where there is no terminal to draw a bar on.
_LINE_EVERY = 10.0
_NOTE_WIDTH = 80
# With one of these set, rich may take a pipe for a terminal.
_TERMINAL_WISHES = ("FORCE_COLOR", "TTY_COMPATIBLE")


class Terminal:
    """Prints results, and is the `Reporter` that the work tells of its progress.

    Args:
        json: results are asked for as one JSON document, so that stdout is kept for it.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._out = _drawing(sys.stdout)
        self._err = _drawing(sys.stderr)

    def heading(self, text: str) -> None:
        """A line that says what a result is about; beside a JSON document it is a message."""
        if self.json:
            self.info(text)
        else:
            self._line(text, "bold")

    def note(self, text: str) -> None:
        """How to read a result, in lines of 80 columns."""
        for line in textwrap.wrap(text, _NOTE_WIDTH):
            self._line(line, "dim")

    def document(self, value: Any) -> None:
        """The JSON document; numbers that JSON has no word for become null."""
        text = json.dumps(_finite(value), indent=2, ensure_ascii=not _says_utf8(), allow_nan=False)
        _write(sys.stdout, text)

    def record(self, value: Any) -> None:
        """One JSON document of many, on a line of its own."""
        _write(sys.stdout, json.dumps(_finite(value), ensure_ascii=not _says_utf8(), allow_nan=False))

    def part(self, text: str) -> None:
        """Part of a longer text, line breaks and all; what comes next goes on behind it."""
        sys.stdout.write(printable(text, keep="\n\t"))
        sys.stdout.flush()

    def table(self, table: Table) -> None:
        """Rows under headings."""
        if self._out is not None:
            self._out.table(table)
        else:
            _write(sys.stdout, plain_table(table))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values, one a line."""
        if self._out is not None:
            self._out.fields(pairs)
        else:
            _write(sys.stdout, plain_fields(pairs))

    def block(self, block: Block) -> None:
        """Named lines about one thing, closed by an empty line."""
        if self._out is not None:
            self._out.block(block)
        else:
            _write(sys.stdout, plain_fields([block.heading, *block.facts, *block.beside]) + "\n")

    def info(self, message: str) -> None:
        """Tell on stderr of something that went as it should."""
        self._message(message, "dim")

    def warn(self, message: str) -> None:
        """Tell on stderr of something that the user may want to act on."""
        self._message(f"warning: {message}", "yellow")

    def confirm(self, question: str, *, otherwise: str) -> None:
        """Ask on stderr before something that cannot be undone.

        Args:
            otherwise: how to say yes on the command line.

        Raises:
            MeloError: the answer is no, or there is nobody to ask.
        """
        if self._err is None or not sys.stdin.isatty():
            raise MeloError("nobody is here to answer", where=question, hint=otherwise)
        if self._err.answer(f"melo: {question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise MeloError("nothing has been changed", where=question, hint=otherwise)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """A bar on a terminal, else a line now and then, and one at the end."""
        pace = Pace(total, unit)
        if self._err is not None:
            with self._err.bar(pace, label) as bar:
                yield bar
        else:
            lines = _Lines(pace, label)
            yield lines
            lines.close()

    def _line(self, text: str, style: str) -> None:
        if self._out is not None:
            self._out.line((printable(text), style))
        else:
            _write(sys.stdout, printable(text))

    def _message(self, message: str, style: str) -> None:
        text = f"melo: {printable(message)}"
        if self._err is not None:
            self._err.line((text, style))
        else:
            _write(sys.stderr, text)


def print_error(message: str) -> None:
    """The one line of an error, on stderr."""
    text = printable(message)
    err = _drawing(sys.stderr)
    if err is not None:
        err.line(("melo: error: ", "bold red"), (text, ""))
    else:
        _write(sys.stderr, f"melo: error: {text}")


def plain_table(table: Table) -> str:
    """A table as aligned text, without boxes or colours."""
    rows = [[printable(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [printable(table.title)] if table.title else []
    for row in rows:
        cells = [
            cell.rjust(width) if name in table.right else cell.ljust(width)
            for cell, width, name in zip(row, widths, table.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plain_fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values as aligned text."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}".rstrip() for name, value in pairs)


class _Lines:
    """Progress as lines of text, for logs."""

    def __init__(self, pace: Pace, label: str) -> None:
        self._pace = pace
        self._label = label
        self._told = pace.started
        self._told_done = 0

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._pace.advance(steps, figures)
        if time.monotonic() - self._told >= _LINE_EVERY:
            self._tell()

    def close(self) -> None:
        """The last line, unless it has been told or nothing was done."""
        if self._pace.done > self._told_done:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._told_done = self._pace.done
        _write(sys.stderr, f"melo: {self._label}: {', '.join(self._pace.parts())}")


def _drawing(stream: TextIO) -> Drawing | None:
    """What draws on a terminal; None for a pipe, which needs no rich and is spared the time of loading it."""
    if not stream.isatty() and not any(name in os.environ for name in _TERMINAL_WISHES):
        return None
    from melo_cli.ui.rich_renderer import Drawing

    drawing = Drawing(stderr=stream is sys.stderr)
    return drawing if drawing.at_terminal else None


def _says_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _write(stream: TextIO, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()
