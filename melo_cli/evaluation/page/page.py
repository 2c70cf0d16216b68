"""Fills the page's template: what was measured, the headline figures, tables, charts, failures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melo_cli.errors import MeloError
from melo_cli.evaluation.charts import COLOURS
from melo_cli.evaluation.failures import worst_failures
from melo_cli.evaluation.page.formatting import (
    KINDS,
    PERPLEXITIES,
    PUBLISHED,
    SHARES,
    number,
    percent,
    shortened,
)
from melo_cli.evaluation.page.html import html_templates
from melo_cli.evaluation.page.sections import sections
from melo_cli.evaluation.page.tables import figure_rows, notes, settings_words, shown_failures
from melo_cli.evaluation.report import EvalReport
from melo_cli.units import listed
from melo_cli.versions import library_versions

_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class _Tile:
    """A headline figure; `kind` gives it the colour of its probes."""

    kind: str
    name: str
    value: str
    words: tuple[str, ...]


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
    """The page: the same for the same report, byte for byte; all text from data and models is escaped."""
    environment = html_templates(_TEMPLATES)
    environment.filters |= {"shortened": shortened, "settings": settings_words}
    return environment.get_template("report.html.jinja").render(
        report=report,
        colours=COLOURS,
        model=report.model.rstrip("/").rpartition("/")[2],
        asked=_asked(report),
        tiles=_published_tiles(report) if "published" in report.edited else _strict_tiles(report),
        rows=figure_rows(report),
        notes=notes(report),
        sections=list(sections(report)),
        failures=[shown_failures(report, group) for group in worst_failures(report)],
        version=library_versions()["melo-cli"],
    )


def _asked(report: EvalReport) -> str:
    counts = {kind: len(report.of_kind(kind)) for kind in KINDS}
    asked = {
        "edit": "the {} edited prompts",
        "rephrase": "{} of their rephrases",
        "unrelated": "{} unrelated prompts",
        "same_subject": "{} other questions about edited subjects",
        "hard": "{} hard negatives (prompts that read like an edit and ask about something else)",
    }
    return listed([words.format(counts[kind]) for kind, words in asked.items() if counts[kind]])


def _strict_tiles(report: EvalReport) -> list[_Tile]:
    tiles = []
    for metric, name, words, kind in SHARES[:5]:
        share = report.edited[metric]
        if share is not None:
            low, high = share["ci95"]
            interval = f"95% interval {percent(low)} to {percent(high)}, n = {share['n']}"
            tiles.append(_Tile(kind, name, percent(share["generation"]), (words, interval)))
    for metric, name, _ in PERPLEXITIES[:2]:
        after = report.edited[metric]
        if after is not None and report.task == "hallucination":
            before = number(report.base[metric])
            words = f"unedited model: {before}; lower is better"
            tiles.append(_Tile("edit", name, number(after), (words,)))
    return tiles


def _published_tiles(report: EvalReport) -> list[_Tile]:
    base, edited = report.base["published"], report.edited["published"]
    shown = number if edited["measure"] == "perplexity" else percent
    return [
        _Tile(
            kind,
            name,
            shown(edited[metric]),
            (f"{edited['measure']}; unedited model: {shown(base[metric])}",),
        )
        for metric, name, kind in PUBLISHED
        if edited[metric] is not None
    ]
