"""`melo status`: what a project holds."""

from __future__ import annotations

from melo_cli.commands._options import AtOption, JsonOption, ProjectOption
from melo_cli.runtime.projects import choose_project, open_overview
from melo_cli.ui.history import status_document, status_fields
from melo_cli.ui.terminal import Terminal


def status(project: ProjectOption = None, at: AtOption = None, as_json: JsonOption = False) -> None:
    """Show what a project holds: its base model, edits, blocks and size.

    Where many small commits have left so many small files that `melo gc`
    would merge some, it says so.
    """
    terminal = Terminal(json=as_json)
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    opened = open_overview(chosen.path, at)
    if as_json:
        terminal.document(status_document(opened))
    else:
        terminal.fields(status_fields(opened))
