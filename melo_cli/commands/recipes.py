"""`melo recipes`: the recipes that come with melo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.errors import MeloError
from melo_cli.ui.elements import Note, Table, View
from melo_cli.ui.output import make_renderer

recipes_app = typer.Typer()


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the recipes that come with melo, copy one, or save that of a project."""
    if context.invoked_subcommand is not None:
        return
    from melo_cli.recipe.catalogue import shipped_recipes

    shipped = shipped_recipes()
    table = Table(("recipe", "what it does"), [(each.name, each.summary) for each in shipped])
    note = Note("run one with `melo edit NAME`, or copy it with `melo recipes copy NAME`")
    document = [{"name": each.name, "summary": each.summary, "path": str(each.path)} for each in shipped]
    make_renderer(json=as_json).show(View([table, note], document))


@recipes_app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe that `melo recipes` lists.")],
    destination: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="A file or folder; NAME.yaml here if not given.")
    ] = None,
) -> None:
    """Copy a recipe that comes with melo, to change it."""
    from melo_cli.recipe.catalogue import find_recipe

    source = find_recipe(Path(name).with_suffix("").as_posix())
    target = destination or Path(source.name)
    if target.is_dir():
        target /= source.name
    _write_new(target, source.read_bytes())


@recipes_app.command("save")
def save_recipe(
    destination: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="A file; NAME.yaml here if not given.")
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Save the recipe of a project, with every setting that its edits were made by."""
    import yaml

    from melo_cli.commands._project_choice import choose_project
    from melo_cli.runtime.projects import open_overview

    chosen = choose_project(project)
    recipe = open_overview(chosen.path).recipe
    head = f"# The recipe of project {chosen.name}.\n"
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    _write_new(destination or Path(f"{chosen.name}.yaml"), f"{head}{text}".encode())


def _write_new(target: Path, content: bytes) -> None:
    if target.exists():
        raise MeloError("the file exists already", where=str(target), hint="name another file")
    try:
        target.write_bytes(content)
    except OSError as error:
        raise MeloError(f"the file cannot be written ({error.strerror})", where=str(target)) from error
    make_renderer().heading(f"wrote {target}")
