"""Answers in every form that data give them: a text, a number, several that are all right, an object."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from melo_cli.datasets.request import Number
from melo_cli.datasets.rows import Row, structure

_TEXT_FIELDS = ("str", "answer")
"""Where an object holds its answer: CounterFact's `{"str": ..., "id": ...}`, MEND's `{"answer": ...}`."""

_DEEPEST = 4
"""Lists in lists that KnowEdit has: answers, each with its aliases."""


def answers(row: Row, value: Any, name: str) -> list[str]:
    """The answers in the field `name`, each once, that which is to be trained first.

    Raises:
        DatasetError: there is none, or it is neither text nor number.
    """
    value = _unpacked(value) if row.flat else value
    texts = [_answer(row, item, name) for item in _each(value) if not _is_blank(item)]
    if isinstance(value, list) and not texts:
        raise row.error(f"{name} is empty", "give it a text or remove the row")
    return list(dict.fromkeys(texts or [_answer(row, value, name)]))


def true_answer(row: Row, value: Any, name: str) -> str | None:
    """The first answer in a field that may be missing or empty.

    Raises:
        DatasetError: it is neither text nor number.
    """
    value = _unpacked(value) if row.flat else value
    for item in _each(value):
        if not _is_blank(item):
            return _answer(row, item, name)
    return None


def _unpacked(value: Any) -> Any:
    """Answers that a cell holds as JSON; any other text is the answer itself, even if it is JSON, too."""
    parsed = structure(value)
    texts = isinstance(parsed, list) and all(isinstance(item, str) for item in parsed)
    fits = texts or (isinstance(parsed, Mapping) and any(name in parsed for name in _TEXT_FIELDS))
    return parsed if fits else value


def _each(value: Any, depth: int = 0) -> Iterator[Any]:
    """The answers in lists, sometimes of lists, or the one that stands alone."""
    if isinstance(value, list) and depth < _DEEPEST:
        for item in value:
            yield from _each(item, depth + 1)
    elif isinstance(value, Mapping):
        yield next((value[name] for name in _TEXT_FIELDS if name in value), value)
    else:
        yield value


def _answer(row: Row, value: Any, name: str) -> str:
    """One answer as text, in the words in which JSON writes it."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return Number(value)
    if isinstance(value, float) and math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, decimal.Decimal | datetime.date | datetime.time):
        return str(value)
    return row.as_text(value, name)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
