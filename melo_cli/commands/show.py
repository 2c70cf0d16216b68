"""`melo show`: one edit."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import AtOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_store
from melo_cli.ui.edits import stored_edit_view
from melo_cli.ui.output import make_renderer


def show(
    edit: Annotated[str, typer.Argument(help="An edit's id, such as e000001.")],
    project: ProjectOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one EDIT: its text, status, metrics and place in the index."""
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    renderer.show(stored_edit_view(open_store(chosen.path, at).edit(edit)))
