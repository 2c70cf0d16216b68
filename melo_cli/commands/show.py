"""`melo show`: one edit."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import AtOption, JsonOption, ProjectOption
from melo_cli.runtime.projects import choose_project, open_store
from melo_cli.ui.edits import edit_fields, edit_view_document
from melo_cli.ui.terminal import Terminal


def show(
    edit: Annotated[str, typer.Argument(help="An edit's id, such as e000001.")],
    project: ProjectOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one EDIT: its text, whether it holds, and where it stands in the index."""
    terminal = Terminal(json=as_json)
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    view = open_store(chosen.path, at).edit(edit)
    if as_json:
        terminal.document(edit_view_document(view))
    else:
        terminal.fields(edit_fields(view))
