"""What `melo export` writes, and for a merge what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Element, Fields, Note, View
from melo_cli.ui.metrics import figures_table, interval_note
from melo_cli.units import human_bytes, human_duration

if TYPE_CHECKING:
    from melo_cli.exporting import ExportSummary
    from melo_store.project import Project


def export_view(summary: ExportSummary, project: Project, task: str) -> View:
    """`melo export`: the figures of a merge, and what stands where."""
    elements: list[Element] = []
    if summary.figures:
        elements = [figures_table(task, summary.figures), Note(interval_note(summary.figures))]
    return View([*elements, Fields(_fields(summary))], _document(summary, project))


def _fields(summary: ExportSummary) -> list[tuple[str, str]]:
    merge = []
    if summary.method is not None and summary.seconds is not None:
        merge = [("method", summary.method), ("merged in", human_duration(summary.seconds))]
    return [
        ("format", summary.format),
        *merge,
        ("folder", str(summary.folder)),
        ("blocks", str(summary.blocks)),
        ("files", str(summary.files)),
        ("size", human_bytes(summary.bytes)),
    ]


def _document(summary: ExportSummary, project: Project) -> dict[str, Any]:
    merge = {} if summary.method is None else {"method": summary.method, "seconds": summary.seconds}
    return {
        "project": project.name,
        "snapshot": project.snapshot,
        "base": project.base.name_or_path,
        "format": summary.format,
        "folder": str(summary.folder),
        "blocks": summary.blocks,
        "files": summary.files,
        "bytes": summary.bytes,
        **merge,
        **summary.figures,
    }
