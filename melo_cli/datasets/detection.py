"""Telling the format of rows from their fields, and what to do about fields of none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from melo_cli.datasets.chat_rows import CompletionRows, InstructionRows, MessagesRows, QuestionAnswerRows
from melo_cli.datasets.field_rows import BESIDE
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.hub import Role
from melo_cli.datasets.knowedit import KnowEditRows, KnowEditWikiBioRows
from melo_cli.datasets.melo_rows import MeloRows
from melo_cli.datasets.published import (
    MendZsreRows,
    NaturalQuestionsRows,
    OpenWebTextRows,
    ScotusRows,
    WikiBigEditRows,
    ZsreRows,
)
from melo_cli.datasets.rewrites import RewriteRows
from melo_cli.datasets.rows import Row
from melo_cli.datasets.wikibio import WikiBioRows
from melo_cli.errors import DatasetError
from melo_cli.suggest import did_you_mean

FORMATS: tuple[type[RowFormat], ...] = (
    MeloRows,
    KnowEditRows,
    RewriteRows,
    ZsreRows,
    WikiBigEditRows,
    WikiBioRows,
    InstructionRows,
    MendZsreRows,
    NaturalQuestionsRows,
    ScotusRows,
    KnowEditWikiBioRows,
    QuestionAnswerRows,
    CompletionRows,
    MessagesRows,
    OpenWebTextRows,
)
"""In the order in which fields are tried: the later formats have fields that the earlier may have, too."""

_MEANT = {
    "prompt": ("question", "query", "instruction", "input", "src"),
    "target": ("answer", "response", "completion", "output", "label", "alt"),
}
"""What people call a prompt and its target elsewhere."""

_KNOWN = {*BESIDE, *(name for kind in FORMATS for name in kind.needs)}


def spelt_as_known(row: Row) -> Row:
    """A row of a table, whose headings may begin with a capital: `Question` is `question` then.

    A name that no format knows stays as it is.
    """
    if not row.flat:
        return row
    fields = {
        name.lower() if name.lower() in _KNOWN and name.lower() not in row.fields else name: value
        for name, value in row.fields.items()
    }
    return replace(row, fields=fields) if len(fields) == len(row.fields) else row


def detect(first: Row, role: Role) -> type[RowFormat]:
    """The format whose fields a data set's first row has.

    Raises:
        DatasetError: there is none; the fields found and those looked for are named.
    """
    kinds = [kind for kind in FORMATS if role != "edits" or kind is not OpenWebTextRows]
    form = _fitting(first, kinds)
    if form is not None:
        return form
    if role == "locality" and "prompt" in first.fields:
        return MeloRows  # unrelated prompts need no answer
    raise _no_format(first, kinds)


def named(format: str, first: Row) -> type[RowFormat]:
    """The format of that name.

    Raises:
        DatasetError: the row lacks a field of it, and fits another.
    """
    kind = next(kind for kind in FORMATS if kind.name == format)
    missing = _missing(first, kind)
    fitting = _fitting(first, FORMATS)
    if missing and fitting is not None:
        raise first.error(
            f'is not a row of the format {format}: it lacks the field "{missing[0]}"',
            f"its fields match dataset.format={fitting.name}",
        )
    return kind


def of_one_format(rows: Iterable[Row], kind: type[RowFormat]) -> Iterator[Row]:
    """The rows as they are.

    Raises:
        DatasetError: one fits another format, and not that of the first.
    """
    for row in rows:
        if _missing(row, kind):
            other = _fitting(row, [each for each in FORMATS if each is not OpenWebTextRows])
            if other is not None:
                raise row.error(
                    f"has the format {other.name}, but the first row has the format {kind.name}",
                    "put each format into its own file",
                )
        yield row


def _fitting(row: Row, kinds: Iterable[type[RowFormat]]) -> type[RowFormat] | None:
    return next((kind for kind in kinds if not _missing(row, kind)), None)


def _missing(row: Row, kind: type[RowFormat]) -> list[str]:
    return [name for name in kind.needs if name not in row.fields]


def _no_format(first: Row, kinds: list[type[RowFormat]]) -> DatasetError:
    """What the nearest format lacks; without one near, all that are known."""
    meant = _renamed(first)
    near = [kind for kind in kinds if len(_missing(first, kind)) < len(kind.needs)]
    if near:
        missing = _missing(first, min(near, key=lambda kind: len(_missing(first, kind))))
        what = f'lacks the field "{missing[0]}"'
        meant = meant or did_you_mean(missing[0], first.fields, cutoff=0.7)
    else:
        what = f"has fields of no known format ({', '.join(first.fields) or 'none'})"
        meant = (
            meant or 'name what is asked "prompt" and the answer "target", or give the fields of a data set'
        )
    fields = f"fields found: {', '.join(first.fields) or 'none'}; " if near else ""
    looked = "; ".join(f"{kind.name}: {', '.join(kind.needs)}" for kind in near or kinds)
    return first.error(what, f"{fields}{f'{meant}; ' if meant else ''}known formats need {looked}")


def _renamed(row: Row) -> str | None:
    """How to rename fields with everyday names, where that gives a prompt and a target."""
    names = {}
    for wanted, others in _MEANT.items():
        written = next((name for name in (wanted, *others) if name in row.fields), None)
        if written is None:
            return None
        names[wanted] = written
    changes = [f'"{written}" to "{wanted}"' for wanted, written in names.items() if written != wanted]
    return f"if it is one, rename {' and '.join(changes)}" if changes else None
