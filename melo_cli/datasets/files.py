"""Rows from a file by its suffix: JSONL, JSON, CSV and Parquet.

Texts are UTF-8, with or without a byte order mark, with either line ending. All but JSON are streamed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from melo_cli.datasets.rows import Row, kind_of
from melo_cli.errors import DatasetError
from melo_cli.suggest import did_you_mean

_PARQUET_ROWS = 1024


def read_file(path: Path) -> Iterator[Row]:
    """The rows of the file at `path`, first to last.

    Raises:
        DatasetError: no such file, a folder, an unknown suffix, or a fault in it, with its line or row.
    """
    require_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(
            f'has the suffix "{path.suffix}"', where=str(path), mend=f"use one of {', '.join(READERS)}"
        )
    try:
        yield from reader(path)
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def require_file(path: Path) -> None:
    """Check that there is a file at `path`.

    Raises:
        DatasetError: there is nothing, or a folder; the nearest name beside it is offered.
    """
    if path.is_dir():
        raise DatasetError("is a folder", where=str(path), mend="name a data file in it")
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = did_you_mean(path.name, beside)
        raise DatasetError(
            "no such file", where=str(path), mend=meant or "paths are relative to the current directory"
        )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a UTF-8 text, line endings kept.

    Raises:
        DatasetError: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"is not UTF-8 (byte {error.start + 1} of the line)",
                    where=f"{path}:{number}",
                    mend="save the file as UTF-8",
                ) from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        if not line.strip():
            raise DatasetError("the line is empty", where=where, mend="delete it")
        yield _row(_parse(line, where), where)


def _read_json(path: Path) -> Iterator[Row]:
    text = "".join(line for _, line in read_lines(path))
    if not text.strip():
        return
    value = _parse(text, str(path))
    if isinstance(value, dict):
        value = _transposed(value, path)
    if not isinstance(value, list):
        raise DatasetError(f"holds {kind_of(value)}", where=str(path), mend="it must be a list of objects")
    for number, item in enumerate(value, start=1):
        where = f"{path}: item {number}"
        yield _row(item, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = where if error.lineno == 1 else f"{where}:{error.lineno}"
        jsonl = error.msg == "Extra data" and error.lineno > 1
        mend = "if every line is an object of its own, name the file .jsonl" if jsonl else None
        raise DatasetError(
            f"is not JSON ({error.msg}, column {error.colno})", where=place, mend=mend
        ) from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise DatasetError(f"is not JSON ({error})", where=where) from error
    except RecursionError as error:
        raise DatasetError("is nested too deeply", where=where) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _row(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DatasetError(f"is {kind_of(value)}", where=where, mend='it must be an object, {"prompt": ...}')
    return Row(where, value)


def _transposed(columns: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows from a mapping of equally long columns, the form of nq_train.json."""
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        raise DatasetError(
            "holds one object", where=str(path), mend="it must be a list of objects, or an object of columns"
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DatasetError(f"has columns of different lengths ({sizes})", where=str(path))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _read_csv(path: Path) -> Iterator[Row]:
    """Python's reader, since it keeps line numbers, and "2006" as the text that it is."""
    cells = csv.reader((line for _, line in read_lines(path)), strict=True)
    try:
        header = next(cells, [])
        if len(set(header)) < len(header):
            raise DatasetError("names a column twice", where=f"{path}:1")
        start = cells.line_num + 1
        for values in cells:
            where = f"{path}:{start}"
            if not values:
                raise DatasetError("the line is empty", where=where, mend="delete it")
            if len(values) != len(header):
                raise DatasetError(f"has {len(values)} cells, the header has {len(header)}", where=where)
            yield Row(where, dict(zip(header, values, strict=True)))
            start = cells.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"is not CSV ({error})", where=f"{path}:{cells.line_num}") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa  # takes a moment to load, and only this format needs it
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}: row {number}", fields)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DatasetError(
            f"is not Parquet, or damaged after row {number} ({error})", where=str(path)
        ) from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
