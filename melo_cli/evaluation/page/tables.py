"""The page's tables: figures of all models, settings of the baselines, failures with their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
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
    text,
)
from melo_cli.evaluation.protocols import unfired
from melo_cli.evaluation.report import EvalReport
from melo_cli.evaluation.results import Result

Columns = Mapping[str, Mapping[str, Any]]


def figures_table(report: EvalReport) -> str:
    """All figures, one column a model."""
    columns = report.columns()
    rows = _published_rows(columns) if "published" in report.edited else _rows(columns)
    heads = "".join(f"<th class=n>{escape(name)}</th>" for name in columns)
    forced = any("teacher-forced" in row for row in rows)
    return (
        "<h2>All figures</h2>\n"
        f"<p class=note>Protocol <b>{report.protocol}</b>: {escape(report.measured)}.</p>\n"
        f"<div class=scroll><table><thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{_FORCED if forced else ''}{_origins(report)}"
    )


def _origins(report: EvalReport) -> str:
    """Where the prompts that must stay come from, and what of their agreement was measured."""
    names = {"same_subject": "Same subject", "hard": "Hard negatives", "unrelated": "Unrelated prompts"}
    notes = [f"{names[kind]}: {words}." for kind, words in report.made.items()]
    notes.append(sentence(unfired(report.edited)))
    return f"\n<p class=note>{escape(' '.join(filter(None, notes)))}</p>"


_FORCED = (
    "\n<p class=note>Teacher-forced: the share of the right answer's tokens that the model would choose when "
    "given those before it, as much of the literature counts; it flatters.</p>"
)


def baselines_table(report: EvalReport) -> str:
    """How the baselines were trained, and how long that took; nothing where none was asked for."""
    if not report.baselines:
        return ""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td class=n>{baseline.train_seconds:.1f}</td>"
        f"<td class=n>{baseline.ask_seconds:.1f}</td><td>{escape(_settings(baseline.settings))}</td></tr>"
        for name, baseline in report.baselines.items()
    )
    return (
        "<h2>The other editors</h2>\n<p class=note>The same edits, each trained once, in the same order and "
        "batches, and asked after the last. finetune moves the weights themselves, lora trains one adapter "
        "for all edits, grace keeps a codebook of values at one layer (arXiv 2211.11031).</p>\n"
        "<div class=scroll><table><thead><tr><th></th><th class=n>training, s</th><th class=n>asking, s</th>"
        f"<th>settings</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def failures_table(report: EvalReport, group: Failures) -> str:
    """One kind of failures with the texts."""
    if not group.rows:
        return f"<h3>{group.title}: none</h3>"
    prompts = {row.edit_id: row.prompt for row in report.of_kind("edit")}
    worst = f", the worst {len(group.rows)} of {group.count}"
    counted = worst if group.count > len(group.rows) else f": {group.count}"
    near = nearness_words(measure_of(report.results))
    rows = "".join(_failure(row, group, prompts, near(row)) for row in group.rows)
    return (
        f"<h3>{group.title}{counted}</h3>\n<p class=note>{group.words}</p>\n"
        "<div class=scroll><table class=texts><thead><tr><th>prompt</th><th>wanted</th><th>unedited</th>"
        f"<th>edited</th><th>nearest edit</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _failure(row: Result, group: Failures, prompts: Mapping[str | None, str], nearness: str) -> str:
    near = row.fired_edit or row.nearest_edit
    state = "answered" if row.fired else "not reached"
    where = f"<small>{state}, {nearness}</small>" if nearness else ""
    return (
        f"<tr><td>{text(row.prompt, 260)}</td>"
        f"<td class=good>{text(row.truth if group.asks_truth else row.base, 120)}</td>"
        f"<td>{text(row.base, 120)}</td><td class=bad>{text(row.edited, 120)}</td>"
        f"<td>{text(prompts.get(near, near), 110)}{where}</td></tr>"
    )


def _rows(columns: Columns) -> list[str]:
    rows = []
    for metric, name, words, _ in SHARES:
        shares = [models[metric] for models in columns.values()]
        rows.append(_row(name, words, [_share_cell(share) for share in shares]))
        forced = [percent(share["teacher_forced"]) if share else "" for share in shares]
        rows.append(_row("teacher-forced", "", forced, style="sub"))
    for metric, name, words in ROUTED:
        rows.append(_row(name, words, [percent(models[metric]) for models in columns.values()]))
    for metric, name, words in PERPLEXITIES:
        rows.append(_row(name, words, [number(models[metric]) for models in columns.values()]))
    return rows


def _published_rows(columns: Columns) -> list[str]:
    published = [models["published"] for models in columns.values()]
    measure = published[0]["measure"]
    shown = number if measure == "perplexity" else percent
    return [
        _row(name, measure, [shown(models[metric]) for models in published]) for metric, name, _ in PUBLISHED
    ]


def _row(name: str, words: str, cells: Sequence[str], style: str = "main") -> str:
    """A row of the figures; none where no model has one."""
    if not any(cells):
        return ""
    shown = "".join(f"<td class=n>{cell or '-'}</td>" for cell in cells)
    return f"<tr class={style}><th>{name}<small>{words}</small></th>{shown}</tr>"


def _share_cell(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return ""
    low, high = share["ci95"]
    return f"{percent(share['generation'])}<small>{percent(low)} to {percent(high)}</small>"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )
