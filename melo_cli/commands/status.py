"""`melo status`: what a project holds."""

from __future__ import annotations

from melo_cli.commands._options import AtOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_overview
from melo_cli.ui.history import status_view
from melo_cli.ui.output import make_renderer


def status(project: ProjectOption = None, at: AtOption = None, as_json: JsonOption = False) -> None:
    """Show what a project holds: its base model, edits, blocks and size.

    It also says if `melo gc` can merge many small files.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    renderer.show(status_view(open_overview(chosen.path, at)))
