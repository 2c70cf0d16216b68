"""`melo gc`: compact a project, and remove the files that it does not need."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_store
from melo_cli.ui.maintenance import collected_view
from melo_cli.ui.output import make_renderer


def gc(
    context: typer.Context,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="Keep only the N newest snapshots. Default: all."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; list every file that would be removed.")
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compact a project and remove the files that no snapshot needs.

    It removes files of interrupted commands and replaced index files. It
    merges 32 or more small files of a kind into one, in a new snapshot that
    holds the same; the old files are removed once no snapshot needs them.
    With --keep, snapshots before the N newest can no longer be read, shown
    or restored.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_cli.versions import library_versions
    from melo_store.maintenance.gc import collect

    opened = open_store(chosen.path)
    done = collect(opened.path, keep=keep, dry_run=dry_run, versions=library_versions(), command=context.obj)
    renderer.show(collected_view(done, dry_run=dry_run))
