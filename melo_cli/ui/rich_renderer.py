"""What `Terminal` prints, as rich draws it for people; loaded only where there is a terminal to draw on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table as RichTable
from rich.text import Text

from melo_cli.ui.elements import Block, Pace, Table
from melo_cli.ui.text import printable


class Drawing:
    """Draws on stdout or stderr."""

    def __init__(self, *, stderr: bool) -> None:
        self._console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)

    @property
    def at_terminal(self) -> bool:
        """Whether the stream is a terminal, or its user wants it taken for one."""
        return self._console.is_terminal

    def line(self, *parts: tuple[str, str]) -> None:
        """Texts with the style of each, in one line that wraps where the terminal ends."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def table(self, table: Table) -> None:
        self._console.print(_table(table))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._console.print(_fields(pairs))

    def block(self, block: Block) -> None:
        self._console.print(_block(block))

    def answer(self, question: str) -> str:
        """What is typed behind a question."""
        return self._console.input(Text(question))

    @contextmanager
    def bar(self, pace: Pace, label: str) -> Iterator[Bar]:
        """Progress as one line that is drawn again and again."""
        shown = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[parts]}"),
            console=self._console,
            expand=True,
        )
        with shown:
            task = shown.add_task(label, total=pace.total, parts="  ".join(pace.parts()))
            yield Bar(pace, shown, task)


class Bar:
    """The line of `Drawing.bar`."""

    def __init__(self, pace: Pace, shown: RichProgress, task: TaskID) -> None:
        self._pace = pace
        self._shown = shown
        self._task = task

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._pace.advance(steps, figures)
        self._shown.update(self._task, completed=self._pace.done, parts="  ".join(self._pace.parts()))


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
