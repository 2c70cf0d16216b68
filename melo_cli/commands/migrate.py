"""`melo migrate`: bring a project to the present format."""

from __future__ import annotations

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_store
from melo_cli.ui.maintenance import migration_view
from melo_cli.ui.output import make_renderer


def migrate(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Bring a project of an older melo to the present format.

    Older formats open, answer and take edits as they are; what a newer
    format brings, such as a learned key map, needs the newer format. Its
    history, routes and answers stay what they are, but an older melo does
    not read it any more.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_store.maintenance.migrate import migrate as bring_up

    opened = open_store(chosen.path)
    renderer.show(migration_view(opened.name, *bring_up(opened.path)))
