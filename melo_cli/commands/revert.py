"""`melo revert`: take edits back, or go back to a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import open_store
from melo_cli.ui.history import revert_view
from melo_cli.ui.output import make_renderer

if TYPE_CHECKING:
    from melo_store.project import Project


def revert(
    context: typer.Context,
    edits: Annotated[
        list[str] | None, typer.Argument(metavar="EDIT", help="Ids of edits, such as e000001.")
    ] = None,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="N", min=0, help="Go back to the edits that answer in snapshot N."),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take edits back: the model answers as if they had never been made.

    An older edit that one of them superseded answers again. Nothing is
    deleted: a revert is a new snapshot, and older ones stay readable with
    --at. `melo revert --to N` undoes a revert as well as an edit.
    """
    renderer = make_renderer(json=as_json)
    if bool(edits) == (to is not None):
        raise MeloError(
            "EDIT and --to do not go together" if edits else "no edit is named",
            where="melo revert",
            hint="name edits by their ids, or a snapshot with --to; `melo log` lists the snapshots",
        )
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_store.diff import difference

    before = open_store(chosen.path)
    _write(before, edits or [], to, context.obj)
    after = open_store(chosen.path)
    renderer.show(revert_view(before, after, difference(before, after)))


def _write(project: Project, edits: list[str], to: int | None, command: str) -> None:
    from melo_cli.versions import library_versions
    from melo_store.writer import open_writer

    with open_writer(project) as writer:
        if to is not None:
            writer.revert_to(to, versions=library_versions(), command=command)
        else:
            writer.revert(edits, versions=library_versions(), command=command)
