"""Rows from a file by its suffix: JSONL, JSON, CSV and Parquet.

Texts are UTF-8 or UTF-16, with or without a byte order mark, with either line ending, empty lines anywhere.
All but JSON are streamed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from melo_cli.datasets.csv_files import read_csv
from melo_cli.datasets.lines import read_lines
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
    suffix = path.suffix.lower()
    reader = READERS.get(suffix)
    if suffix in WORKBOOKS:
        raise DatasetError("is an Excel workbook", where=str(path), hint="save the sheet as CSV UTF-8")
    if reader is None:
        raise DatasetError(
            f'has the unknown suffix "{path.suffix}"',
            where=str(path),
            hint=f"use one of {', '.join(READERS)}",
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
        raise DatasetError("is a folder", where=str(path), hint="name a data file in it")
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = did_you_mean(path.name, beside)
        raise DatasetError(
            "no such file", where=str(path), hint=meant or "paths are relative to the current directory"
        )


def _read_jsonl(path: Path) -> Iterator[Row]:
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):  # JSON under the other name
        yield from _read_json(path)
        return
    if first[1].strip() == "{":
        raise DatasetError(
            "has an object that continues on the next line",
            where=f"{path}:{first[0]}",
            hint="write each object on one line, or use a .json file with one list",
        )
    for number, line in itertools.chain([first], lines):
        where = f"{path}:{number}"
        yield _row(_parse(line, where), where)


def _read_json(path: Path) -> Iterator[Row]:
    text = "".join(line for _, line in read_lines(path))
    if not text.strip():
        return
    value = _parse(text, str(path))
    if isinstance(value, dict):
        value = _transposed(value, path)
    if not isinstance(value, list):
        raise DatasetError(f"holds {kind_of(value)}", where=str(path), hint="it must be a list of objects")
    for number, item in enumerate(value, start=1):
        where = f"{path}: item {number}"
        yield _row(item, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        location = where if error.lineno == 1 else f"{where}:{error.lineno}"
        jsonl = error.msg == "Extra data" and error.lineno > 1
        hint = "if every line is an object of its own, name the file .jsonl" if jsonl else None
        raise DatasetError(
            f"is not JSON ({error.msg}, column {error.colno})", where=location, hint=hint
        ) from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise DatasetError(f"is not JSON ({error})", where=where) from error
    except RecursionError as error:
        raise DatasetError("is nested too deeply", where=where) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _row(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DatasetError(f"is {kind_of(value)}", where=where, hint='it must be an object, {"prompt": ...}')
    return Row(where, value)


def _transposed(columns: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows from a mapping of equally long columns, the form of nq_train.json."""
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        raise DatasetError(
            "holds a single object",
            where=str(path),
            hint="it must be a list of objects, or an object of columns",
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DatasetError(f"has columns of different lengths ({sizes})", where=str(path))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


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
            f"is not a Parquet file, or is damaged after row {number} ({error})", where=str(path)
        ) from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": read_csv,
    ".parquet": _read_parquet,
    ".tsv": read_csv,
    ".ndjson": _read_jsonl,
}

WORKBOOKS = (".xlsx", ".xls", ".ods")
