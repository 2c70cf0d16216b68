"""Puts the page together: what was measured, the headline figures, tables, charts, failures."""

from __future__ import annotations

from html import escape
from pathlib import Path

from melo_cli.errors import MeloError
from melo_cli.evaluation.failures import worst_failures
from melo_cli.evaluation.page.formatting import (
    KINDS,
    PERPLEXITIES,
    PUBLISHED,
    SHARES,
    listed,
    number,
    percent,
)
from melo_cli.evaluation.page.sections import nearness, other_limits, retention
from melo_cli.evaluation.page.style import STYLE
from melo_cli.evaluation.page.tables import baselines_table, failures_table, figures_table
from melo_cli.evaluation.report import EvalReport
from melo_cli.versions import library_versions


def write_page(report: EvalReport, path: Path) -> None:
    """Write the report as one HTML file that loads nothing.

    Raises:
        MeloError: the file cannot be written.
    """
    try:
        path.write_text(render_page(report), encoding="utf-8", errors="replace")
    except OSError as error:
        raise MeloError(f"the report cannot be written ({error})", where=str(path)) from error


def render_page(report: EvalReport) -> str:
    """The page; all text from data and models is escaped."""
    sections = [
        _head(report),
        _tiles(report),
        figures_table(report),
        baselines_table(report),
        retention(report),
        nearness(report),
        other_limits(report),
        "<h2>What goes wrong</h2>",
        *(failures_table(report, group) for group in worst_failures(report)),
        _foot(report),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.project)}: {report.edits} edits measured</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(report: EvalReport) -> str:
    counts = {kind: len(report.of_kind(kind)) for kind in KINDS}
    hard = "hard negatives (prompts that read like an edit and ask about something else)"
    same_subject = "other questions about edited subjects"
    asked = [
        words
        for kind, words in (
            ("edit", f"the {counts['edit']} edited prompts"),
            ("rephrase", f"{counts['rephrase']} of their rephrases"),
            ("unrelated", f"{counts['unrelated']} unrelated prompts"),
            ("same_subject", f"{counts['same_subject']} {same_subject}"),
            ("hard", f"{counts['hard']} {hard}"),
        )
        if counts[kind]
    ]
    model = escape(report.model.rstrip("/").rpartition("/")[2])
    facts = f"task {report.task}, snapshot {report.snapshot}, protocol {report.protocol}"
    return (
        f"<h1>{escape(report.project)}</h1>\n<p class=facts>{escape(facts)}</p>\n"
        f"<p class=lead>The language model <b>{model}</b> was given <b>{report.edits} edits</b>, each of "
        "which says how one prompt is to be answered from now on, without changing the model's own weights. "
        f"Here the edited model is asked {listed(asked)}, and its answers are compared with those asked for "
        "and with those of the unedited model.</p>"
    )


def _tiles(report: EvalReport) -> str:
    tiles = _published_tiles(report) if "published" in report.edited else _strict_tiles(report)
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _strict_tiles(report: EvalReport) -> list[str]:
    tiles = []
    for metric, name, words, kind in SHARES[:5]:
        share = report.edited[metric]
        if share is not None:
            low, high = share["ci95"]
            detail = f"{words}<br>95% interval {percent(low)} to {percent(high)}, n = {share['n']}"
            tiles.append(_tile(kind, name, percent(share["generation"]), detail))
    for metric, name, _ in PERPLEXITIES[:2]:
        after = report.edited[metric]
        if after is not None and report.task == "hallucination":
            before = number(report.base[metric])
            tiles.append(_tile("edit", name, number(after), f"unedited model: {before}; lower is better"))
    return tiles


def _published_tiles(report: EvalReport) -> list[str]:
    base, edited = report.base["published"], report.edited["published"]
    shown = number if edited["measure"] == "perplexity" else percent
    return [
        _tile(
            kind, name, shown(edited[metric]), f"{edited['measure']}; unedited model: {shown(base[metric])}"
        )
        for metric, name, kind in PUBLISHED
        if edited[metric] is not None
    ]


def _tile(kind: str, name: str, value: str, words: str) -> str:
    return f'<div class="tile {kind}"><span>{name}</span><b>{value}</b><small>{words}</small></div>'


def _foot(report: EvalReport) -> str:
    version = library_versions()["melo-cli"]
    return (
        f"<footer>Base model {escape(report.model)}. Asked in {report.seconds:.1f} s by melo "
        f"{escape(version)}, which edits models by neuron-indexed dynamic LoRA (arXiv 2312.11795): each "
        "batch of edits trains a small block, and an index over the model's view of prompts decides which "
        "block answers. Intervals are Wilson's, at 95%.</footer>"
    )
