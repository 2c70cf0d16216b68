"""Loads edits and prompts from a recipe's `dataset` section, or from a path or hub id."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from melo_cli.datasets.detection import detect, named, of_one_format, spelt_as_known
from melo_cli.datasets.files import READERS, WORKBOOKS, read_file
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.hub import HUB_ID, Role, read_hub
from melo_cli.datasets.reading_notes import ReadingNotes, warn_of_repeats
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row
from melo_cli.datasets.wikibio import HOW_TO_NAME, WikiBioRows
from melo_cli.errors import DatasetError
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import Reporter


def load_edits(source: DatasetSection, task: str, reporter: Reporter) -> list[EditRequest]:
    """The edits that a recipe names, in the order of their rows.

    All rows are read and checked, then `max_edits` cuts. Oddities that a reader can go on past (a prompt
    edited twice, an empty locality answer, an empty rephrase) are warned of with their count.

    Args:
        source: the `dataset` section of a recipe.
        task: the recipe's task, which the row format must serve.
        reporter: takes the warnings.

    Raises:
        DatasetError: no such data, a row that is no edit (with file and line), or rows of another task.
    """
    notes = ReadingNotes()
    form, rows = _open(source.edits, "edits", source.format, source.split, source.concepts)
    _require_task(form, task, source.edits)
    edits = list(form.edits(rows, notes))
    if not edits:
        raise DatasetError("holds no edits", where=source.edits)
    notes.report(reporter, source.edits)
    kept = edits[: source.max_edits]
    warn_of_repeats(kept, reporter, source.edits)
    return kept


def load_rows(source: DatasetSection) -> list[Row]:
    """The rows of a recipe's edits as they stand, with the fields that no edit has a place for.

    Raises:
        DatasetError: no such data, or a line that is no row.
    """
    _, rows = _open(source.edits, "edits", source.format, source.split, source.concepts)
    return list(itertools.islice(rows, source.max_edits))


def load_locality(source: DatasetSection, task: str, reporter: Reporter) -> list[tuple[str, str | None]]:
    """The unrelated prompts that `dataset.locality` names, with their true answers.

    The file or hub data set may be in any row format, which is detected from its fields. Rows of `melo` with
    locality fields give those pairs, else their prompt and target. An answer is None where the data have
    none, or where the rows serve other tasks, such as questions beside a classifier.

    Args:
        source: the `dataset` section of a recipe; reading stops after `max_locality` prompts.
        task: the recipe's task.
        reporter: takes the warnings.

    Returns:
        The pairs in the order of their rows; none where `dataset.locality` is null.

    Raises:
        DatasetError: no such data, or a row that does not fit (with file and line).
    """
    if source.locality is None:
        return []
    notes = ReadingNotes()
    form, rows = _open(source.locality, "locality", "auto", None, source.concepts)
    pairs = list(itertools.islice(form.unrelated(rows, notes), source.max_locality))
    if not pairs:
        raise DatasetError("holds no unrelated prompts", where=source.locality)
    notes.report(reporter, source.locality)
    if task not in form.tasks:
        reporter.warn(
            f"{source.locality}: {form.name} rows have no answers for the task {task}: "
            "locality is measured by agreement with the base model alone"
        )
        return [(prompt, None) for prompt, _ in pairs]
    return pairs


def load_calibration(source: DatasetSection, task: str, reporter: Reporter) -> list[EditRequest]:
    """The prompts with rephrases that `dataset.calibration` names, read as edits are.

    Args:
        source: the `dataset` section of a recipe.
        task: the recipe's task, which the row format must serve.
        reporter: takes the warnings.

    Returns:
        The rows in order; none where `dataset.calibration` is null.

    Raises:
        DatasetError: as `load_edits`.
    """
    return _load_beside(source.calibration, source, task, reporter)


def load_hard(source: DatasetSection, task: str, reporter: Reporter) -> list[EditRequest]:
    """The prompts that `dataset.hard` names, read as edits are; none where it is null.

    Raises:
        DatasetError: as `load_edits`.
    """
    return _load_beside(source.hard, source, task, reporter)


def _load_beside(
    reference: str | None, source: DatasetSection, task: str, reporter: Reporter
) -> list[EditRequest]:
    if reference is None:
        return []
    named = {"edits": reference, "format": "auto", "split": None, "max_edits": None}
    return load_edits(source.model_copy(update=named), task, reporter)


def load_accurate(source: DatasetSection, task: str, reporter: Reporter) -> list[tuple[str, str]]:
    """The text that `dataset.accurate` names, as prompts with their continuations, for ARR.

    Args:
        source: the `dataset` section of a recipe. wikibio-hallucination rows give the sentences annotated
            accurate, other rows all they have.
        task: the recipe's task, which the row format must serve.
        reporter: takes the warnings.

    Returns:
        The pairs in the order of their rows; none where `dataset.accurate` is null.

    Raises:
        DatasetError: as `load_edits`.
    """
    if source.accurate is None:
        return []
    notes = ReadingNotes()
    form, rows = _open(source.accurate, "accurate", "auto", None, source.concepts)
    _require_task(form, task, source.accurate)
    pairs = list(form.accurate(rows, notes))
    if not pairs:
        raise DatasetError("holds no accurate text", where=source.accurate)
    notes.report(reporter, source.accurate)
    return pairs


def _require_task(form: RowFormat, task: str, where: str) -> None:
    if task not in form.tasks:
        raise DatasetError(
            f"{form.name} rows cannot be used for the task {task}",
            where=where,
            hint=f"their tasks are {', '.join(sorted(form.tasks))}",
        )


def _open(
    reference: str, role: Role, format: str, split: str | None, concepts: str | None
) -> tuple[RowFormat, Iterator[Row]]:
    rows = map(spelt_as_known, _rows(reference, role, split))
    first = next(rows, None)
    if first is None:
        raise DatasetError("holds no rows", where=reference)
    kind = detect(first, role) if format == "auto" else named(format, first)
    return _reader(kind, concepts, reference), of_one_format(itertools.chain([first], rows), kind)


def _rows(reference: str, role: Role, split: str | None) -> Iterator[Row]:
    """What exists here, ends like a data file or cannot be a hub id is a file; the rest is the hub's."""
    path = Path(reference)
    if path.suffix.lower() in (*READERS, *WORKBOOKS) or path.exists() or not HUB_ID.fullmatch(reference):
        if split is not None:
            raise DatasetError(
                f'is a file, and files have no split "{split}"', where=reference, hint="remove dataset.split"
            )
        return read_file(path)
    return read_hub(reference, role=role, split=split)


def _reader(kind: type[RowFormat], concepts: str | None, reference: str) -> RowFormat:
    if kind is not WikiBioRows:
        return kind()
    if concepts is None:
        raise DatasetError("its rows do not name their subjects", where=reference, hint=HOW_TO_NAME)
    return WikiBioRows(Path(concepts))
