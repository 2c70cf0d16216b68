"""`melo revert`: take edits back, or go back to a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import choose_project, open_store
from melo_cli.ui.history import changes_document, changes_table, counted
from melo_cli.ui.terminal import Terminal

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

    An older edit that one of them replaced answers again. Nothing is
    deleted: a revert is a new snapshot, the old ones stay readable with
    --at, and `melo revert --to N` undoes a revert as well as an edit.
    """
    terminal = Terminal(json=as_json)
    if bool(edits) == (to is not None):
        raise MeloError(
            "EDIT and --to do not go together" if edits else "nothing is named to take back",
            where="melo revert",
            hint="name edits by their ids, or a snapshot with --to; `melo log` lists the snapshots",
        )
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    from melo_store.diff import difference

    before = open_store(chosen.path)
    _write(before, edits or [], to, context.obj)
    after = open_store(chosen.path)
    changes = difference(before, after)
    if as_json:
        terminal.document({"project": after.name, **changes_document(before, after, changes)})
    elif after.snapshot == before.snapshot:
        terminal.note("nothing to do: these edits answer nothing already")
    else:
        terminal.table(changes_table(changes))
        terminal.note(f"snapshot {after.snapshot}: {counted(after.info.counts['live'], 'live edit')}")


def _write(project: Project, edits: list[str], to: int | None, command: str) -> None:
    from melo_cli.versions import library_versions
    from melo_store.writer import open_writer

    with open_writer(project) as writer:
        if to is not None:
            writer.revert_to(to, versions=library_versions(), command=command)
        else:
            writer.revert(edits, versions=library_versions(), command=command)
