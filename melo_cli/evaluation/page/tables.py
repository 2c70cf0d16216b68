"""The rows of the page's tables: figures of all models, settings of baselines, failures with their texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.evaluation.decision_measures import measure_of
from melo_cli.evaluation.failures import Failures
from melo_cli.evaluation.page.formatting import (
    PERPLEXITIES,
    PUBLISHED,
    ROUTED,
    SHARES,
    nearness_words,
    number,
    percent,
    sentence,
)
from melo_cli.evaluation.protocols import unfired
from melo_cli.evaluation.report import EvalReport
from melo_cli.evaluation.results import Result


@dataclass(frozen=True)
class Cell:
    """A figure with its interval."""

    value: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """A row of the figures, one cell a model; `sub` belongs to the row above it."""

    name: str
    words: str
    cells: Sequence[Cell]
    sub: bool = False


@dataclass(frozen=True)
class ShownFailure:
    """One failure: the texts, and how near the prompt is to its nearest edit."""

    prompt: str
    wanted: str | None
    base: str | None
    edited: str | None
    nearest: str | None
    state: str


@dataclass(frozen=True)
class ShownFailures:
    """One kind of failure, with the worst of them."""

    title: str
    words: str
    rows: Sequence[ShownFailure]


def figure_rows(report: EvalReport) -> list[Row]:
    """All figures that some model has, one column a model."""
    columns = list(report.columns().values())
    rows = _published_rows(columns) if "published" in report.edited else _rows(columns)
    return [row for row in rows if any(cell.value for cell in row.cells)]


def notes(report: EvalReport) -> str:
    """Where the prompts that must stay come from, and what of their agreement was measured."""
    names = {"same_subject": "Same subject", "hard": "Hard negatives", "unrelated": "Unrelated prompts"}
    notes = [f"{names[kind]}: {words}." for kind, words in report.made.items()]
    notes.append(sentence(unfired(report.edited)))
    return " ".join(filter(None, notes))


def settings_words(settings: Mapping[str, Any]) -> str:
    """A baseline's settings on one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )


def shown_failures(report: EvalReport, group: Failures) -> ShownFailures:
    """One kind of failures with the texts."""
    prompts = {row.edit_id: row.prompt for row in report.of_kind("edit")}
    near = nearness_words(measure_of(report.results))
    worst = f", the worst {len(group.rows)} of {group.count}"
    counted = worst if group.count > len(group.rows) else f": {group.count or 'none'}"
    rows = [_failure(row, group, prompts, near(row)) for row in group.rows]
    return ShownFailures(f"{group.title}{counted}", group.words, rows)


def _failure(row: Result, group: Failures, prompts: Mapping[str | None, str], nearness: str) -> ShownFailure:
    near = row.fired_edit or row.nearest_edit
    state = "answered" if row.fired else "not reached"
    return ShownFailure(
        prompt=row.prompt,
        wanted=row.truth if group.asks_truth else row.base,
        base=row.base,
        edited=row.edited,
        nearest=prompts.get(near, near),
        state=f"{state}, {nearness}" if nearness else "",
    )


def _rows(columns: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for metric, name, words, _ in SHARES:
        shares = [models[metric] for models in columns]
        yield Row(name, words, [_share_cell(share) for share in shares])
        forced = [percent(share["teacher_forced"]) if share else "" for share in shares]
        yield Row("teacher-forced", "", [Cell(value) for value in forced], sub=True)
    for metric, name, words in ROUTED:
        yield Row(name, words, [Cell(percent(models[metric])) for models in columns])
    for metric, name, words in PERPLEXITIES:
        yield Row(name, words, [Cell(number(models[metric])) for models in columns])


def _published_rows(columns: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    published = [models["published"] for models in columns]
    measure = published[0]["measure"]
    shown = number if measure == "perplexity" else percent
    for metric, name, _ in PUBLISHED:
        yield Row(name, measure, [Cell(shown(models[metric])) for models in published])


def _share_cell(share: Mapping[str, Any] | None) -> Cell:
    if share is None:
        return Cell()
    low, high = share["ci95"]
    return Cell(percent(share["generation"]), f"{percent(low)} to {percent(high)}")
