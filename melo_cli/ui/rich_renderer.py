"""Tables, boxes, colours and bars, drawn by rich; loaded only where there is a terminal to draw on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table as RichTable
from rich.text import Text

from melo_cli.errors import MeloError
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
from melo_cli.ui.renderer import Messages, Renderer, no_terminal_to_ask_at
from melo_cli.ui.text import printable, write_passage


class RichRenderer(Renderer):
    """Results for people at a terminal.

    Args:
        console: draws on stdout.
    """

    def __init__(self, messages: Messages, console: Console) -> None:
        super().__init__(messages)
        self._console = console

    def heading(self, text: str) -> None:
        _draw_line(self._console, (printable(text), "bold"))

    def show(self, view: View) -> None:
        for element in view.elements:
            self._show(element)

    def _show(self, element: Element) -> None:
        match element:
            case Table():
                self._console.print(_table(element))
            case Fields(pairs):
                self._console.print(_fields(pairs))
            case Block():
                self._console.print(_block(element))
            case Heading(text):
                self.heading(text)
            case Note():
                for line in element.lines:
                    _draw_line(self._console, (printable(line), "dim"))
            case Passage(text):
                write_passage(text)
            case Message():
                self._report(element)


class RichMessages:
    """Messages and bars for people at a terminal.

    Args:
        console: draws on stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def info(self, message: str) -> None:
        self._message(message, "dim")

    def warn(self, message: str) -> None:
        self._message(f"warning: {message}", "yellow")

    def error(self, message: str) -> None:
        _draw_line(self._console, ("melo: error: ", "bold red"), (printable(message), ""))

    def confirm(self, question: str, *, where: str, hint: str) -> None:
        if not sys.stdin.isatty():
            raise no_terminal_to_ask_at(where, hint)
        answer = self._console.input(Text(f"melo: {question} [y/N] "))
        if answer.strip().lower() not in ("y", "yes"):
            raise MeloError("nothing has been changed", where=where, hint=hint)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """One line that is drawn again and again."""
        pace = Pace(total, unit)
        drawn = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[parts]}"),
            console=self._console,
            expand=True,
        )
        with drawn:
            task = drawn.add_task(label, total=total, parts="  ".join(pace.parts()))
            yield _Bar(pace, drawn, task)

    def _message(self, message: str, style: str) -> None:
        _draw_line(self._console, (f"melo: {printable(message)}", style))


class _Bar:
    """The line of `RichMessages.progress`."""

    def __init__(self, pace: Pace, drawn: RichProgress, task: TaskID) -> None:
        self._pace = pace
        self._drawn = drawn
        self._task = task

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._pace.advance(steps, figures)
        self._drawn.update(self._task, completed=self._pace.done, parts="  ".join(self._pace.parts()))


def _draw_line(console: Console, *parts: tuple[str, str]) -> None:
    """Texts with the style of each, in one line that wraps where the terminal ends."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def _table(table: Table) -> RenderableType:
    shown = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=_title(table),
        title_justify="left",
    )
    for name in table.columns:
        shown.add_column(
            name,
            justify="right" if name in table.right else "left",
            overflow="fold",
            no_wrap=name in table.right or (bool(table.cut) and name not in table.cut),
        )
    for row in table.rows:
        shown.add_row(
            *(_cell(cell, name in table.cut) for name, cell in zip(table.columns, row, strict=True))
        )
    return shown


def _cell(text: str, cut: bool) -> Text:
    """A cell; the column of one that may be cut is free to shrink, since only the cell keeps to its line."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis") if cut else Text(printable(text))


def _title(table: Table) -> Text | None:
    return Text(printable(table.title), style="bold") if table.title else None


def _fields(pairs: Sequence[tuple[str, str]]) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(printable(value)))
    return grid


def _block(block: Block) -> RenderableType:
    parts: list[RenderableType] = [Text(printable(block.heading[1]), style="bold"), _fields(block.facts)]
    if block.beside:
        answers = RichTable(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, show_edge=False, padding=(0, 1))
        for name, _ in block.beside:
            answers.add_column(name, ratio=1, overflow="fold")
        answers.add_row(*(Text(printable(text)) for _, text in block.beside))
        parts.append(answers)
    return Panel(Group(*parts))
