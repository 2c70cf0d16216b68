"""`melo log`: the history of a project."""

from __future__ import annotations

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.runtime.projects import choose_project, open_overview
from melo_cli.ui.history import history_document, history_table
from melo_cli.ui.terminal import Terminal


def log(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots of a project, the newest first.

    ES is the share of the edits that a snapshot added which answered as
    asked when it was made; those already right count as they are.
    """
    terminal = Terminal(json=as_json)
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    history = open_overview(chosen.path).history()
    if as_json:
        terminal.document(history_document(history))
    else:
        terminal.table(history_table(history))
