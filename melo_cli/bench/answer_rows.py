"""Every question with a method's answer: the rows of a Parquet file, and the figures that they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from melo_cli.bench.methods.method import Reply
from melo_cli.bench.questions import KINDS, Question
from melo_cli.bench.scoring import contains_one, equals_one
from melo_cli.evaluation.statistics import mean, wilson_interval
from melo_cli.runtime.inference import same_answer


@dataclass(frozen=True)
class AnswerRow:
    """One question with its answer.

    Attributes:
        kind: one of `questions.KINDS`.
        edit: row of the edit that it belongs to, if any.
        turns: how many turns stood before it.
        base: the base's answer.
        edit_id: the edit that answered, where a router said so.
        right: whether the answer is right as the suite measures it: as asked for, or as the base's.
        holds: whether it contains a truth; null where the data give none.
        strict: whether it is, white space aside, exactly the truth or the base's answer.
        true: whether it is the data's own answer; null where they give none.
    """

    kind: str
    edit: int | None
    prompt: str
    turns: int
    truths: list[str]
    unwanted: list[str]
    base: str
    answer: str
    edit_id: str | None
    right: bool
    holds: bool | None
    strict: bool
    true: bool | None


_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("edit", pa.int64()),
        ("prompt", pa.string()),
        ("turns", pa.int64()),
        ("truths", pa.list_(pa.string())),
        ("unwanted", pa.list_(pa.string())),
        ("base", pa.string()),
        ("answer", pa.string()),
        ("edit_id", pa.string()),
        ("right", pa.bool_()),
        ("holds", pa.bool_()),
        ("strict", pa.bool_()),
        ("true", pa.bool_()),
    ]
)


def judged(question: Question, base: str, reply: Reply) -> AnswerRow:
    """A question's row."""
    keeps = KINDS[question.kind].keeps
    wanted = (base,) if keeps else question.truths
    return AnswerRow(
        kind=question.kind,
        edit=question.edit,
        prompt=question.prompt,
        turns=len(question.before),
        truths=list(question.truths),
        unwanted=list(question.unwanted),
        base=base,
        answer=reply.text,
        edit_id=reply.edit_id,
        right=equals_one(reply.text, wanted) if keeps else question.right(reply.text),
        holds=contains_one(reply.text, question.truths) if question.truths else None,
        strict=any(same_answer(reply.text, text) for text in wanted),
        true=question.right(reply.text) if question.truths else None,
    )


def write_rows(rows: Sequence[AnswerRow], path: Path) -> None:
    """Write the rows as a Parquet file."""
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA), path)


def read_rows(path: Path) -> list[AnswerRow]:
    """The rows of a Parquet file that `write_rows` wrote."""
    return [AnswerRow(**row) for row in pq.read_table(path).to_pylist()]


def figures(rows: Sequence[AnswerRow]) -> dict[str, dict[str, Any]]:
    """The figures of each kind that was asked, in the order of `KINDS`.

    Returns:
        For each kind `right` and `strict` as shares, `n`, the 95% interval `ci95` of the first, `fired`, the
        share that an edit answered, and of those whose answer the data give `true`, the share that is it, and
        `holds`, the share that contains it.
    """
    asked = Counter(row.kind for row in rows)
    return {kind: _figures([row for row in rows if row.kind == kind]) for kind in KINDS if asked[kind]}


def _figures(rows: Sequence[AnswerRow]) -> dict[str, Any]:
    n = len(rows)
    right = sum(row.right for row in rows)
    known = [row for row in rows if row.true is not None]
    return {
        "right": right / n,
        "strict": sum(row.strict for row in rows) / n,
        "n": n,
        "ci95": list(wilson_interval(right, n)),
        "fired": sum(row.edit_id is not None for row in rows) / n,
        "true": mean([float(bool(row.true)) for row in known]),
        "holds": mean([float(bool(row.holds)) for row in known]),
    }
