"""What every row format offers, and telling a format from the fields of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row

TEXT_TASKS = frozenset({"zsre", "hallucination", "counterfact", "custom"})


class RowFormat(ABC):
    """Turns the rows of one published format into edits, unrelated prompts or accurate text.

    Attributes:
        name: as in `dataset.format`.
        needs: fields that every row has; they also identify the format.
        tasks: the tasks that its edits can serve.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    tasks: ClassVar[frozenset[str]] = TEXT_TASKS

    @abstractmethod
    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """The edits that the rows ask for."""

    def unrelated(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
        """Prompts that edits must leave alone, with their true answer, None where it is not known."""
        yield from self.accurate(rows, notes)

    def accurate(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str]]:
        """Prompts with the continuation that is right."""
        for edit in self.edits(rows, notes):
            yield edit.prompt, edit.target
