"""The published data sets as they are: SCOTUS, zsRE, WikiBigEdit, Natural Questions, OpenWebText."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from melo_cli.datasets.answers import answers
from melo_cli.datasets.field_rows import FieldRows
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.related_prompts import rephrases
from melo_cli.datasets.request import EditRequest, Number
from melo_cli.datasets.rows import Row, kind_of

CUT = 200
"""Characters of an OpenWebText document that become the prompt, and as many at most the continuation."""

SHORTEST = 20
"""Characters that a document needs to be worth cutting."""


class ScotusRows(RowFormat):
    """tomh/grace-scotus: `text`, and `label` as a class id or a class name, which is kept as text."""

    name = "scotus"
    needs = ("text", "label")
    tasks = frozenset({"scotus", "custom"})

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a row: the text, and its class as target."""
        for row in rows:
            yield EditRequest(
                prompt=row.text("text"), target=_label(row), metadata=row.rest(frozenset(self.needs))
            )


def _label(row: Row) -> str:
    label = row.required("label")
    if isinstance(label, int) and not isinstance(label, bool):
        return Number(label)
    if not isinstance(label, str):
        raise row.error(f"label is {kind_of(label)}", "it must be a class id or a class name")
    return row.as_text(label, "label")


class MendZsreRows(RowFormat):
    """The zsRE of MEND: `input`, `output[0].answer`, `filtered_rephrases`, and `subject` where given."""

    name = "mend-zsre"
    needs = ("input", "output")

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a row, all its filtered rephrases with it."""
        used = frozenset({*self.needs, "filtered_rephrases", "subject"})
        for row in rows:
            prompt = row.text("input")
            target, *aliases = _output(row)
            yield EditRequest(
                prompt=prompt,
                target=target,
                rephrases=notes.rephrases(rephrases(row, ["filtered_rephrases"]), prompt),
                subject=row.optional_text("subject"),
                metadata=row.rest(used),
                aliases=tuple(aliases),
            )


def _output(row: Row) -> list[str]:
    """The answers that count as right, those behind the first without empty ones."""
    output = row.required("output")
    first = output[0] if isinstance(output, list) and output else None
    if not isinstance(first, dict) or "answer" not in first:
        raise row.error("output[0].answer is missing", 'output must be [{"answer": "..."}]')
    return list(dict.fromkeys([*answers(row, first, "output[0].answer"), *answers(row, output, "output")]))


class ZsreRows(FieldRows):
    """The zsRE of ROME, EasyEdit and WISE: `src` and `alt`, `rephrase`, and `loc` with `loc_ans`."""

    name = "zsre"
    needs = ("src", "alt")
    prompt_field = "src"
    target_field = "alt"

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a row; as in the published loaders, rows without a new answer are left out."""
        yield from super().edits(_answered(rows, notes), notes)


def _answered(rows: Iterable[Row], notes: ReadingNotes) -> Iterator[Row]:
    for row in rows:
        if row.fields.get("alt") == "":
            notes.no_targets += 1
        else:
            yield row


class WikiBigEditRows(FieldRows):
    """WikiBigEdit: `update` and `ans`, `rephrase`, and `loc` with `loc_ans`; the rest is metadata."""

    name = "wikibigedit"
    needs = ("update", "ans")
    prompt_field = "update"
    target_field = "ans"


class NaturalQuestionsRows(RowFormat):
    """nq_train.json: `questions` with `answers`, each one text or a list of texts that are all right."""

    name = "nq"
    needs = ("questions", "answers")

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a question; its first answer is the target, all of them stay in the metadata."""
        for row in rows:
            question, answers = row.text("questions"), _answers(row)
            if not answers:
                raise row.error("answers is empty", "give it an answer or remove the row")
            yield EditRequest(question, answers[0], metadata={"answers": answers}, aliases=tuple(answers[1:]))

    def unrelated(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
        """The question with its first answer."""
        for row in rows:
            answers = _answers(row)
            notes.empty_answers += not answers
            yield row.text("questions"), answers[0] if answers else None


def _answers(row: Row) -> list[str]:
    value = row.required("answers")
    items: list[Any] = value if isinstance(value, list) else [value]
    texts = [item for item in items if not isinstance(item, str) or item.strip()]
    return list(dict.fromkeys(row.as_text(item, "answers") for item in texts))


class OpenWebTextRows(RowFormat):
    """Documents with a `text`: no edits, but unrelated or accurate text.

    The prompt is the beginning, up to the last word boundary within the first 200 characters or the first
    half, whichever is less; the continuation is what follows, up to the last word boundary within 200
    characters. Where there is no boundary (Chinese, a long address) the limit itself cuts. White space
    around both parts goes. Documents of fewer than 20 characters are left out.
    """

    name = "openwebtext"
    needs = ("text",)

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """Refuse: documents hold no edits."""
        for row in rows:
            raise row.error("documents hold no edits", "use them for dataset.locality or dataset.accurate")
        yield from ()

    def accurate(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str]]:
        """Both parts of each document; those too short for two parts are left out."""
        for row in rows:
            text = row.optional_text("text")
            parts = cut_text(text) if text is not None else None
            if parts is None:
                notes.short_texts += 1
            else:
                yield parts


def cut_text(text: str) -> tuple[str, str] | None:
    """Beginning and continuation of a text, or None where it is too short for both."""
    text = text.strip()
    if len(text) < SHORTEST:
        return None
    middle = _boundary(text, min(CUT, len(text) // 2))
    rest = text[middle:].lstrip()
    prompt, continuation = text[:middle].rstrip(), rest[: _boundary(rest, CUT)].rstrip()
    return (prompt, continuation) if prompt and continuation else None


def _boundary(text: str, limit: int) -> int:
    """The last word boundary at or before `limit`; `limit` itself where there is none."""
    if limit >= len(text) or text[limit].isspace():
        return min(limit, len(text))
    space = re.search(r"\s\S*$", text[:limit])
    return space.start() if space else limit
