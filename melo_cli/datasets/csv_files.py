"""CSV as spreadsheets write it: with a comma, semicolon, tab or bar, empty rows and columns at the end."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from melo_cli.datasets.lines import read_lines
from melo_cli.datasets.rows import Row
from melo_cli.errors import DatasetError

if TYPE_CHECKING:
    from _csv import Reader

_SEPARATORS = ",;\t|"
_NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""Excel's own first line, which names the separator."""


def read_csv(path: Path) -> Iterator[Row]:
    """The rows of a CSV file under its header; those without any text are left out.

    Python's reader, since it keeps line numbers, and "2006" as the text that it is.

    Raises:
        DatasetError: it is no CSV, or a row does not fit the header.
    """
    lines = read_lines(path)
    first, skipped = next(lines, None), 0
    named = _NAMED_SEPARATOR.fullmatch(first[1]) if first is not None else None
    if named is not None:
        first, skipped = next(lines, None), 1
    if first is None:
        return
    separator = named[1] if named is not None else _separator(first[1])
    texts = (line for _, line in itertools.chain([first], lines))
    cells = csv.reader(texts, delimiter=separator, strict=True)
    try:
        yield from _rows(path, cells, skipped)
    except csv.Error as error:
        raise DatasetError(f"is not CSV ({error})", where=f"{path}:{cells.line_num + skipped}") from error


def _rows(path: Path, cells: Reader, skipped: int) -> Iterator[Row]:
    header = _header(path, next(cells), skipped)
    start = cells.line_num + 1
    for values in cells:
        where = f"{path}:{start + skipped}"
        while len(values) > len(header) and not values[-1].strip():
            values.pop()
        start = cells.line_num + 1
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise DatasetError(
                f"has {len(values)} cells, but the header has {len(header)}",
                where=where,
                hint="put quotes around a cell that contains the separator",
            )
        yield Row(where, dict(zip(header, values, strict=True)), flat=True)


def _header(path: Path, names: list[str], skipped: int) -> list[str]:
    """The names of the columns, without the nameless ones at the end."""
    columns = [name.strip() for name in names]
    while columns and not columns[-1]:
        columns.pop()
    if len(set(columns)) < len(columns):
        raise DatasetError("has a column name twice", where=f"{path}:{skipped + 1}")
    return columns


def _separator(header: str) -> str:
    """What cuts the header into most names: they hold none of the separators, unlike the texts below."""
    line = header.replace("\r", " ")  # within a line Python's reader takes none
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([line], delimiter=separator), [])))
