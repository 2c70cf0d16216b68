"""What is shown, whatever form it takes: a view with its elements, and how far a job is."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melo_cli.units import human_bytes, human_duration

_NOTE_WIDTH = 80
# Figures of the work that are shares, shown in percent.
_SHARES = {"solved"}


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    Attributes:
        title: a line above it, or None.
        right: headings of the columns that are aligned to the right, as numbers are.
        cut: headings of the columns whose ends a narrow terminal cuts off, so that each row takes one line;
            where there are none, long cells go on in the next line.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    right: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fields:
    """Names and values, one pair a line."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Block:
    """Named lines about one thing, with texts to compare beside each other at the end.

    Attributes:
        heading: what it is about.
        facts: name and text of each line.
        beside: name and text of each column under the lines.
    """

    heading: tuple[str, str]
    facts: Sequence[tuple[str, str]]
    beside: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Heading:
    """A line that names what follows."""

    text: str


@dataclass(frozen=True)
class Note:
    """How to read a result."""

    text: str

    @property
    def lines(self) -> list[str]:
        """The text in lines of 80 columns; a word, which may be a path or an option, stays in one piece."""
        return textwrap.wrap(self.text, _NOTE_WIDTH, break_on_hyphens=False, break_long_words=False)


@dataclass(frozen=True)
class Passage:
    """Text with its line breaks; what comes next continues its last line."""

    text: str


@dataclass(frozen=True)
class Message:
    """A line on stderr beside a result."""

    text: str
    warning: bool = False


Element = Table | Fields | Block | Heading | Note | Passage | Message


@dataclass(frozen=True)
class View:
    """One result: its elements for people, and its document for programs.

    Attributes:
        elements: in the order in which they are shown.
        document: the same as JSON values; None shows nothing there.
    """

    elements: Sequence[Element]
    document: Any = None


@dataclass
class Pace:
    """How far a job is, and how fast it goes."""

    total: int
    unit: str
    done: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=lambda: time.monotonic())

    def advance(self, steps: int, figures: Mapping[str, float]) -> None:
        self.done += steps
        self.figures |= figures

    @property
    def rate(self) -> float | None:
        """Units a second since the start; None until one is done."""
        seconds = time.monotonic() - self.started
        return self.done / seconds if self.done and seconds else None

    def counted(self) -> str:
        if self.unit == "bytes":
            return f"{human_bytes(self.done)} of {human_bytes(self.total)}"
        return f"{self.done}/{self.total} {self.unit}"

    def speed(self) -> str:
        if self.rate is None:
            return ""
        return f"{human_bytes(self.rate)}/s" if self.unit == "bytes" else f"{self.rate:.3g}/s"

    def time(self) -> str:
        """The time left; at the end, the time taken."""
        if self.rate is None:
            return ""
        if self.done >= self.total:
            return f"in {human_duration(time.monotonic() - self.started)}"
        return f"{human_duration((self.total - self.done) / self.rate)} left"

    def parts(self) -> list[str]:
        """Count, rate, time and the figures of the work, as far as they are known."""
        figures = [
            f"{name} {value:.0%}" if name in _SHARES else f"{name} {value:.3g}"
            for name, value in self.figures.items()
        ]
        return [part for part in (self.counted(), self.speed(), self.time(), *figures) if part]
