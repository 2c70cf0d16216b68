"""`melo migrate`: convert a project to the present format."""

from __future__ import annotations

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.projects import open_store
from melo_cli.ui.maintenance import migration_view
from melo_cli.ui.output import make_renderer


def migrate(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Convert a project of an older melo to the present format.

    A project of an older format opens, answers and takes edits as it is.
    Newer features, such as a learned scope model, need the newer format.
    History, routes and answers stay as they are, but an older melo can no
    longer read the project.
    """
    renderer = make_renderer(json=as_json)
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_store.maintenance.migrate import migrate as convert

    opened = open_store(chosen.path)
    renderer.show(migration_view(opened.name, *convert(opened.path)))
