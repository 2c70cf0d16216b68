"""One row of a data set: its fields, its position, and the checks that every format needs."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melo_cli.errors import DatasetError
from melo_cli.suggest import did_you_mean

_DEEPEST = 50
"""Levels of nesting that metadata may have."""

_SHOWN = 160
"""Characters of a row that an error shows, and a quarter of them of each text in it."""


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row.

    Attributes:
        where: its position for errors (`file:line` or `file: row n`).
        flat: whether a field holds a list or an object as JSON text, as a CSV cell does.
    """

    where: str
    fields: Mapping[str, Any]
    flat: bool = False

    def error(self, what: str, hint: str | None = None) -> DatasetError:
        """An error about this row, which it shows, to be raised by the caller."""
        shown = f"the row: {self.shown()}"
        return DatasetError(what, where=self.where, hint=f"{hint}; {shown}" if hint else shown)

    def shown(self) -> str:
        """The row as JSON, shortened."""
        text = json.dumps(_shortened(self.fields), ensure_ascii=False, default=str)
        return _whole(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")

    def required(self, name: str) -> Any:
        """The value of a field that must be there.

        Raises:
            DatasetError: the row lacks it; the fields found are listed.
        """
        if name not in self.fields:
            fields = f"fields found: {', '.join(self.fields) or 'none'}"
            meant = did_you_mean(name, self.fields, cutoff=0.7)
            raise self.error(f'lacks the field "{name}"', f"{fields}; {meant}" if meant else fields)
        return self.fields[name]

    def text(self, name: str) -> str:
        """A field that must be there and hold more than white space.

        Raises:
            DatasetError: missing, no text, or empty.
        """
        return self.as_text(self.required(name), name)

    def optional_text(self, name: str) -> str | None:
        """A field that may be missing, null or empty, all of which read as None."""
        value = self.fields.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        return self.as_text(value, name)

    def as_text(self, value: object, name: str) -> str:
        """`value`, found in the field `name`, as text that is not empty.

        Raises:
            DatasetError: no text, half a surrogate pair in it, or empty.
        """
        if not isinstance(value, str):
            raise self.error(f"{name} is {kind_of(value)}", "it must be text in quotes")
        if not value.strip():
            raise self.error(f"{name} is empty", "give it a text or remove the row")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.error(
                f"{name} has an incomplete surrogate pair", "write the whole character"
            ) from error
        return value

    def texts(self, name: str) -> list[str]:
        """A field that must hold a list of texts, none of them empty."""
        value = self.required(name)
        if not isinstance(value, list):
            raise self.error(f"{name} is {kind_of(value)}", "it must be a list of texts")
        return [self.as_text(item, f"{name}[{i}]") for i, item in enumerate(value)]

    def rest(self, used: frozenset[str]) -> dict[str, Any]:
        """The fields that are not `used`, as JSON values: what becomes metadata."""
        return {
            _whole(name): self._as_json(value, name, 0)
            for name, value in self.fields.items()
            if name not in used and value is not None
        }

    def _as_json(self, value: Any, name: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self.error(f"{name} is nested more than {_DEEPEST} levels deep", "remove the field")
        if isinstance(value, str):
            return _whole(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, list | tuple):
            return [self._as_json(item, name, depth + 1) for item in value]
        if isinstance(value, dict):
            return {_whole(str(key)): self._as_json(item, name, depth + 1) for key, item in value.items()}
        if isinstance(value, datetime.date | datetime.time | decimal.Decimal):
            return str(value)
        raise self.error(f"{name} is {kind_of(value)}, which cannot be stored", "remove the column")


def structure(value: Any) -> Any:
    """A list or object that a flat file holds as JSON text; None for an empty text; else the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # a text that happens to begin so
            return value
    return None if value == "" else value


def _shortened(value: Any, depth: int = 0) -> Any:
    """A value with its texts cut and what lies deep left out, so that every field of a row has room."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN // 4 else f"{value[: _SHOWN // 4 - 3]}..."
    if isinstance(value, Mapping):
        return {str(key): _shortened(item, depth + 1) for key, item in value.items()} if depth < 3 else "..."
    if isinstance(value, list | tuple):
        return [_shortened(item, depth + 1) for item in value[:3]] if depth < 3 else "..."
    return value


def _whole(text: str) -> str:
    """`text` with a question mark for every half of a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def kind_of(value: object) -> str:
    """The kind of a value in words, with the value itself where it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{value} (true or false)".lower()
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else f"of type {type(value).__name__}"
