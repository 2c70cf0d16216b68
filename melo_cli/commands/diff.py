"""`melo diff`: what lies between two snapshots."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_store
from melo_cli.ui.history import difference_view
from melo_cli.ui.output import make_renderer


def diff(
    first: Annotated[int, typer.Argument(metavar="A", min=0, help="A snapshot, as `melo log` numbers them.")],
    second: Annotated[
        int | None, typer.Argument(metavar="B", min=0, help="Another one; the newest if not given.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which edits were added, removed or superseded between snapshots A and B."""
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_store.diff import difference

    before, after = open_store(chosen.path, first), open_store(chosen.path, second)
    renderer.show(difference_view(before, after, difference(before, after)))
