"""The original files of CounterFact (ROME, MEMIT) and MQuAKE: an edit or more in `requested_rewrite`.

    {"requested_rewrite": {"prompt": "{} plays the", "subject": "...", "target_new": {"str": "..."},
                           "target_true": {"str": "..."}},
     "paraphrase_prompts": ["..."], "neighborhood_prompts": ["..."]}

MQuAKE has a list there, each with a `question` that asks for the same fact; the questions over several hops
are kept as metadata of every edit that they rest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from melo_cli.datasets.field_rows import FieldRows
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.related_prompts import REPHRASES
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row, kind_of, structure


class RewriteRows(FieldRows):
    """One edit for each requested rewrite."""

    name = "requested-rewrite"
    needs = ("requested_rewrite",)
    target_field = "target_new"
    rephrase_fields = (*REPHRASES, "question")

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """The edits of all rows, in order."""
        yield from super().edits(_rewrites(rows), notes)

    def unrelated(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
        """The neighbourhood prompts of all rows, with the true object of the fact."""
        yield from super().unrelated(_rewrites(rows), notes)


def _rewrites(rows: Iterable[Row]) -> Iterator[Row]:
    """Each rewrite with the fields of its row, as one row."""
    for row in rows:
        value = structure(row.required("requested_rewrite"))
        rewrites = [value] if isinstance(value, Mapping) else value
        if not isinstance(rewrites, list) or not rewrites:
            raise row.error(
                f"requested_rewrite is {kind_of(value)}",
                "it must be {prompt, subject, target_new} or a list of such",
            )
        beside = {name: value for name, value in row.fields.items() if name != "requested_rewrite"}
        for number, rewrite in enumerate(rewrites, start=1):
            where = row.where if len(rewrites) == 1 else f"{row.where}, rewrite {number}"
            if not isinstance(rewrite, Mapping):
                raise Row(where, row.fields).error(f"is {kind_of(rewrite)}", "it must be an object")
            yield Row(where, {**beside, **rewrite})
