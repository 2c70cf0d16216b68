"""KnowEdit's rows (arXiv 2401.01286), which EasyEdit reads.

    {"prompt": "...", "target_new": "...", "subject": "...", "rephrase": ["..."],
     "locality": {"Relation_Specificity": [{"prompt": "...", "ground_truth": "..."}], "Forgetfulness": [...]},
     "portability": {...}}

The locality prompts of kind Relation_Specificity ask something else about the subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.notes import Notes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row, kind_of

_USED = frozenset({"prompt", "target_new", "subject", "rephrase", "locality"})


class KnowEditRows(RowFormat):
    """Rows with prompt and new target; what should carry over (`portability`) is kept as metadata."""

    name = "knowedit"
    needs = ("prompt", "target_new")

    def edits(self, rows: Iterable[Row], notes: Notes) -> Iterator[EditRequest]:
        """One edit a row."""
        for row in rows:
            prompt = row.text("prompt")
            yield EditRequest(
                prompt=prompt,
                target=_target(row),
                rephrases=notes.rephrases(_rephrases(row), prompt),
                locality=tuple(_locality(row, notes)),
                subject=row.optional_text("subject"),
                metadata=row.rest(_USED),
            )

    def unrelated(self, rows: Iterable[Row], notes: Notes) -> Iterator[tuple[str, str | None]]:
        """The locality prompts of all kinds."""
        for row in rows:
            yield from _locality(row, notes)


def _target(row: Row) -> str:
    found = _first(row.required("target_new"))
    if found is None:
        raise row.error("target_new is empty", "give it a text or remove the row")
    return row.as_text(found, "target_new")


def _rephrases(row: Row) -> list[str]:
    found = row.fields.get("rephrase") or []
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise row.error(f"rephrase is {kind_of(found)}", "it must be a text or a list of texts")
    return texts


def _locality(row: Row, notes: Notes) -> Iterator[tuple[str, str | None]]:
    kinds = row.fields.get("locality") or {}
    if not isinstance(kinds, Mapping):
        raise row.error(f"locality is {kind_of(kinds)}", "it must be an object of lists, by kind")
    for kind, pairs in kinds.items():
        name = f"locality.{kind}"
        if not isinstance(pairs, list) or not all(isinstance(pair, Mapping) for pair in pairs):
            raise row.error(f"{name} is {kind_of(pairs)}", "it must be a list of {prompt, ground_truth}")
        for place, pair in enumerate(pairs):
            truth = _first(pair.get("ground_truth"))
            notes.empty_answers += truth is None
            yield row.as_text(pair.get("prompt"), f"{name}[{place}].prompt"), truth


def _first(value: Any) -> str | None:
    """The first of the answers that count as right: a text, or texts in lists, sometimes of lists."""
    while isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) and value.strip() else None
