"""ROME's templates: a prompt with `{}` where its subject belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row
from melo_cli.errors import DatasetError
from melo_cli.reporter import Reporter

_SLOT = "{}"
_OF_ROME = ("relation_id", "target_true")


def fill_in(row: Row, texts: list[str], subject: str | None, notes: ReadingNotes) -> list[str]:
    """A prompt and its rephrases with their `{}` replaced by the subject.

    Braces are ordinary signs in a question about code: a prompt that has its subject already, or `{}` more
    than once, stays as it is, and so does one without a subject unless the data are ROME's.

    Raises:
        DatasetError: the row has ROME's fields, a prompt with `{}` and no subject.
    """
    prompt = texts[0]
    if _SLOT not in prompt:
        return texts
    if subject is None:
        if any(name in row.fields for name in _OF_ROME) or isinstance(row.fields.get("target_new"), Mapping):
            raise _lacks_subject(row)
        notes.without_subject.append(row)
    elif _has_slot(prompt, subject):
        notes.filled_in += 1
        return _filled(texts, subject)
    notes.braces += 1
    return texts


def filled_in(request: EditRequest, reporter: Reporter) -> EditRequest:
    """A single edit with its `{}` replaced by the subject, as in `fill_in`; a warning if that is not
    possible."""
    if _SLOT not in request.prompt:
        return request
    if request.subject is None or not _has_slot(request.prompt, request.subject):
        reporter.warn(
            "the {} of the prompt is kept; to fill in one {}, give a subject that the prompt does not contain"
        )
        return request
    prompt, *rephrases = _filled([request.prompt, *request.rephrases], request.subject)
    return replace(request, prompt=prompt, rephrases=tuple(rephrases))


def require_subjects(notes: ReadingNotes) -> None:
    """Where other rows of the data were templates, those with `{}` and no subject are, too.

    Raises:
        DatasetError: there is such a row.
    """
    if notes.filled_in and notes.without_subject:
        raise _lacks_subject(notes.without_subject[0])


def _filled(texts: Sequence[str], subject: str) -> list[str]:
    return [text.replace(_SLOT, subject) if _has_slot(text, subject) else text for text in texts]


def _has_slot(text: str, subject: str) -> bool:
    return text.count(_SLOT) == 1 and subject not in text


def _lacks_subject(row: Row) -> DatasetError:
    return row.error("the prompt has {}, but the row has no subject to fill in", "give the row a subject")
