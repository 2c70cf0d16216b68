"""Plain text, for pipes and logs: no colours, no boxes, no rich."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from melo_cli.reporter import Progress
from melo_cli.ui.elements import (
    Block,
    Element,
    Fields,
    Heading,
    Message,
    Note,
    Pace,
    Passage,
    Table,
    View,
)
from melo_cli.ui.renderer import Renderer, no_terminal_to_ask_at
from melo_cli.ui.text import printable, write_line, write_passage

_SECONDS_BETWEEN_LINES = 10.0
"""Least time between two lines of progress."""


class PlainRenderer(Renderer):
    """Results as plain text."""

    def heading(self, text: str) -> None:
        write_line(sys.stdout, printable(text))

    def show(self, view: View) -> None:
        for element in view.elements:
            self._show(element)

    def _show(self, element: Element) -> None:
        match element:
            case Table():
                write_line(sys.stdout, plain_table(element))
            case Fields(pairs):
                write_line(sys.stdout, plain_fields(pairs))
            case Block():
                pairs = [element.heading, *element.facts, *element.beside]
                write_line(sys.stdout, plain_fields(pairs) + "\n")
            case Heading(text):
                self.heading(text)
            case Note():
                for line in element.lines:
                    write_line(sys.stdout, printable(line))
            case Passage(text):
                write_passage(text)
            case Message():
                self._report(element)


class PlainMessages:
    """Messages as lines of plain text."""

    def info(self, message: str) -> None:
        write_line(sys.stderr, f"melo: {printable(message)}")

    def warn(self, message: str) -> None:
        self.info(f"warning: {message}")

    def error(self, message: str) -> None:
        self.info(f"error: {message}")

    def confirm(self, question: str, *, where: str, hint: str) -> None:
        raise no_terminal_to_ask_at(where, hint)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """A line now and then, and one at the end."""
        lines = _ProgressLines(Pace(total, unit), label)
        yield lines
        lines.close()


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


class _ProgressLines:
    """Progress as lines of text."""

    def __init__(self, pace: Pace, label: str) -> None:
        self._pace = pace
        self._label = label
        self._last_time = pace.started
        self._last_done = 0

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._pace.advance(steps, figures)
        if time.monotonic() - self._last_time >= _SECONDS_BETWEEN_LINES:
            self._write()

    def close(self) -> None:
        """Write the last line, unless it is written already or nothing was done."""
        if self._pace.done > self._last_done:
            self._write()

    def _write(self) -> None:
        self._last_time = time.monotonic()
        self._last_done = self._pace.done
        write_line(sys.stderr, f"melo: {self._label}: {', '.join(self._pace.parts())}")
