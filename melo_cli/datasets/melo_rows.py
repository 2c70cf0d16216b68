"""melo's own rows: a prompt, a target, and whatever else belongs to the edit.

    {"prompt": "...", "target": "...", "rephrases": ["..."], "subject": "...",
     "locality": [{"prompt": "...", "target": "..."}, "..."], "metadata": {}}

Only prompt and target are required. `locality_prompt` and `locality_target` are a shorter way to give one
pair. A CSV cell holds a list or an object as JSON. Other fields become metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.notes import Notes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row, kind_of
from melo_cli.suggest import nearest

_OPTIONAL = ("rephrases", "locality", "locality_prompt", "locality_target", "subject", "metadata")
_KNOWN = frozenset({"prompt", "target", *_OPTIONAL})


class MeloRows(RowFormat):
    """Rows with prompt and target; zsRE, CounterFact and hallucination cuts come so, too."""

    name = "melo"
    needs = ("prompt", "target")
    tasks = RowFormat.tasks | {"scotus"}

    def edits(self, rows: Iterable[Row], notes: Notes) -> Iterator[EditRequest]:
        """One edit a row."""
        for row in rows:
            prompt, target = row.text("prompt"), row.text("target")
            _note_misspelt(row, notes)
            yield EditRequest(
                prompt=prompt,
                target=target,
                rephrases=notes.rephrases(_rephrases(row), prompt),
                locality=tuple(_locality(row, notes)),
                subject=row.optional_text("subject"),
                metadata={**row.rest(_KNOWN), **_metadata(row)},
            )

    def unrelated(self, rows: Iterable[Row], notes: Notes) -> Iterator[tuple[str, str | None]]:
        """The locality pairs of rows that have such fields, else the prompt and (if given) the target."""
        for row in rows:
            if "locality" in row.fields or "locality_prompt" in row.fields:
                yield from _locality(row, notes)
            else:
                yield row.text("prompt"), _answer(row, row.fields.get("target"), "target", notes)


def _rephrases(row: Row) -> list[str]:
    found = _structure(row.fields.get("rephrases"))
    texts = [found] if isinstance(found, str) else found or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise row.error(f"rephrases is {kind_of(found)}", "it must be a list of texts")
    return [text if not text.strip() else row.as_text(text, "rephrases") for text in texts]


def _locality(row: Row, notes: Notes) -> Iterator[tuple[str, str | None]]:
    found = _structure(row.fields.get("locality"))
    pairs = [found] if isinstance(found, str | dict) else found or []
    if not isinstance(pairs, list):
        raise row.error(f"locality is {kind_of(found)}", "it must be a list of texts or {prompt, target}")
    for place, pair in enumerate(pairs):
        name = f"locality[{place}]"
        if isinstance(pair, dict):
            prompt = row.as_text(pair.get("prompt"), f"{name}.prompt")
            yield prompt, _answer(row, pair.get("target"), f"{name}.target", notes)
        else:
            yield row.as_text(pair, name), None
    prompt_field, answer = row.fields.get("locality_prompt"), row.fields.get("locality_target")
    if prompt_field or answer:
        prompt = row.as_text(prompt_field, "locality_prompt")
        yield prompt, _answer(row, answer, "locality_target", notes)


def _answer(row: Row, value: object, name: str, notes: Notes) -> str | None:
    """A true answer; an empty one is a fault of the data that is counted, a missing one is none."""
    if isinstance(value, str) and not value.strip():
        notes.empty_answers += 1
        return None
    return None if value is None else row.as_text(value, name)


def _metadata(row: Row) -> dict[str, Any]:
    found = _structure(row.fields.get("metadata"))
    if not found:
        return {}
    if not isinstance(found, dict):
        raise row.error(f"metadata is {kind_of(found)}", "it must be an object")
    return Row(row.where, found).rest(frozenset())


def _structure(value: Any) -> Any:
    """A list or object that a flat file holds as JSON text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # a text that happens to begin so
            return value
    return None if value == "" else value


def _note_misspelt(row: Row, notes: Notes) -> None:
    for name in row.fields:
        if name not in _KNOWN and name not in notes.seen_fields:
            notes.seen_fields.add(name)
            near = nearest(name, _OPTIONAL, count=1, cutoff=0.85)
            if near:
                notes.misspelt[name] = near[0]
