"""What `melo export` wrote, and for a merge what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.ui.metrics import figures_table, interval_note
from melo_cli.ui.terminal import Terminal
from melo_cli.units import human_bytes, human_duration

if TYPE_CHECKING:
    from melo_cli.exporting import ExportSummary
    from melo_store.project import Project


def show_export(terminal: Terminal, summary: ExportSummary, task: str) -> None:
    """The figures of a merge, and what stands where."""
    if summary.figures:
        terminal.table(figures_table(task, summary.figures))
        terminal.note(interval_note(summary.figures))
    made = []
    if summary.method is not None and summary.seconds is not None:
        made = [("method", summary.method), ("merged in", human_duration(summary.seconds))]
    terminal.fields(
        [
            ("format", summary.format),
            *made,
            ("folder", str(summary.folder)),
            ("blocks", str(summary.blocks)),
            ("files", str(summary.files)),
            ("size", human_bytes(summary.bytes)),
        ]
    )


def export_document(summary: ExportSummary, project: Project) -> dict[str, Any]:
    """`melo export --json`."""
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
