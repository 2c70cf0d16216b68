"""The numbered lines of a text file in UTF-8, or in UTF-16 or UTF-32 as Windows writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from melo_cli.errors import DatasetError

_UTF8 = ("utf-8", "utf-8-sig")
_HEAD = 4
"""Bytes that identify an encoding: a byte order mark, or the zeros of wide characters."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of the file at `path`, line endings kept, a byte order mark left out.

    Raises:
        DatasetError: a line is in no such encoding.
    """
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(_HEAD))
    if encoding in _UTF8:
        yield from _utf8_lines(path)
    else:
        yield from _wide_lines(path, encoding)


def _utf8_lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"is not UTF-8 (byte {error.start + 1} of the line)",
                    where=f"{path}:{number}",
                    hint='save the file as UTF-8; in Excel: as "CSV UTF-8 (comma delimited)"',
                ) from error


def _wide_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    number = 0
    with path.open(encoding=encoding, newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line
        except UnicodeError as error:
            raise DatasetError(
                f"is not valid {encoding.upper()}, although the file begins so",
                where=f"{path}:{number + 1}",
                hint="save the file as UTF-8",
            ) from error
