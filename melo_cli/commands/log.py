"""`melo log`: the history of a project."""

from __future__ import annotations

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_overview
from melo_cli.ui.history import history_view
from melo_cli.ui.output import make_renderer


def log(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots of a project, the newest first.

    ES is edit success: the share of a snapshot's new edits that were
    answered as asked when it was made. Edits that were right already count.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    renderer.show(history_view(open_overview(chosen.path).history()))
