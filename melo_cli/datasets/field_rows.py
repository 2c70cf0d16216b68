"""Rows that hold an edit in fields of their own: a prompt, a target, and what belongs to them beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from melo_cli.datasets.answers import answers
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.related_prompts import LOCALITY, REPHRASES, locality, rephrases
from melo_cli.datasets.request import TARGET_ALIASES, EditRequest, aliases_in
from melo_cli.datasets.rows import Row, kind_of, structure
from melo_cli.datasets.subject_slots import fill_in, require_subjects
from melo_cli.suggest import nearest

_TARGETS = ("target", "target_new")
BESIDE = ("subject", "metadata", TARGET_ALIASES, *REPHRASES, *sorted(LOCALITY))
"""Fields that may stand beside a prompt and its target."""


class FieldRows(RowFormat):
    """One edit a row; the formats differ in what they call prompt and target.

    Attributes:
        prompt_field, target_field, subject_field: their names.
        rephrase_fields: the names that rephrases may have.
    """

    prompt_field: ClassVar[str] = "prompt"
    target_field: ClassVar[str]
    subject_field: ClassVar[str] = "subject"
    rephrase_fields: ClassVar[Sequence[str]] = REPHRASES

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit a row."""
        for row in rows:
            yield self._edit(row, notes)
        require_subjects(notes)

    def unrelated(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
        """The locality prompts of every row."""
        for row in rows:
            yield from locality(row, notes)

    def _edit(self, row: Row, notes: ReadingNotes) -> EditRequest:
        text = row.text(self.prompt_field)
        target, *others = answers(row, row.required(self.target_field), self.target_field)
        self._require_one_target(row, target)
        subject = row.optional_text(self.subject_field)
        texts = [text, *rephrases(row, self.rephrase_fields)]
        prompt, *reworded = fill_in(row, texts, subject, notes)
        metadata = {**row.rest(self._used(row)), **_metadata(row)}
        self._note_misspelt(row, notes)
        aliases = [*others, *_aliases(row), *aliases_in(metadata)]
        if aliases_in(metadata):
            del metadata[TARGET_ALIASES]
        return EditRequest(
            prompt=prompt,
            target=target,
            rephrases=notes.rephrases(reworded, prompt),
            locality=tuple(locality(row, notes)),
            subject=subject,
            metadata=metadata,
            aliases=tuple(alias for alias in dict.fromkeys(aliases) if alias != target),
        )

    def _require_one_target(self, row: Row, target: str) -> None:
        """A second target under the other name may say nothing else."""
        names = _TARGETS if self.target_field in _TARGETS else ()
        for name in names:
            if row.fields.get(name) and answers(row, row.fields[name], name)[0] != target:
                raise row.error(
                    f"has {self.target_field} and a different {name}", "keep the field with the wanted answer"
                )

    def _used(self, row: Row) -> frozenset[str]:
        """The fields that are no metadata; a target with an id beside its text stays, for the id."""
        used = {self.prompt_field, self.target_field, self.subject_field, "metadata", TARGET_ALIASES}
        if isinstance(row.fields.get(self.target_field), Mapping):
            used.remove(self.target_field)
        return frozenset({*used, *self.rephrase_fields, *LOCALITY})

    def _note_misspelt(self, row: Row, notes: ReadingNotes) -> None:
        used = self._used(row)
        for name in row.fields:
            if name not in used and name not in notes.seen_fields:
                notes.seen_fields.add(name)
                near = nearest(name, BESIDE, count=1, cutoff=0.85)
                if near:
                    notes.misspelt[name] = near[0]


def _aliases(row: Row) -> list[str]:
    given = row.fields.get(TARGET_ALIASES)
    return answers(row, given, TARGET_ALIASES) if given else []


def _metadata(row: Row) -> dict[str, Any]:
    metadata = structure(row.fields.get("metadata"))
    if not metadata:
        return {}
    if not isinstance(metadata, dict):
        raise row.error(f"metadata is {kind_of(metadata)}", "it must be an object")
    return Row(row.where, metadata).rest(frozenset())
