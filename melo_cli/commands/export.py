"""`melo export`: a project as artefacts that other tools load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import AtOption, BaseOption, JsonOption, ProjectOption
from melo_cli.commands.rendering.figures import export_document, show_export
from melo_cli.errors import MeloError
from melo_cli.projects import choose_project
from melo_cli.terminal import Terminal

if TYPE_CHECKING:
    from melo_cli.exporting import ExportSummary
    from melo_cli.loading import OpenProject


class Format(StrEnum):
    """What `--format` takes; `--merge` is the third way."""

    PEFT = "peft"
    ROUTED = "routed"


def export(
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="peft: one adapter a block; routed: a folder for melo_cli.load."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Write a plain checkpoint with the blocks summed into its weights."),
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Default: export/PROJECT-FORMAT.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FOLDER if it is there.")] = False,
    base_name: Annotated[
        str | None,
        typer.Option(
            "--base-name", metavar="NAME", help="What peft adapters are to name as their base model."
        ),
    ] = None,
    project: ProjectOption = None,
    at: AtOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a project as PEFT adapters, as a routed model, or merged into one checkpoint."""
    terminal = Terminal(json=as_json)
    kind = _kind(format_, merge=merge)
    if base_name is not None and kind != Format.PEFT:
        raise MeloError("only adapters name a base model", where="--base-name", mend="add --format peft")
    chosen = choose_project(project)
    folder = to if to is not None else Path("export") / f"{chosen.name}-{kind}"
    if folder.exists() and not overwrite:
        raise MeloError(
            "it exists already", where=str(folder), mend="add --overwrite, or name another with --to"
        )
    terminal.heading(f"project {chosen}")
    from melo_cli.loading import open_project

    opened = open_project(chosen.path, at=at, base=base)
    summary = _write(kind, opened, folder, terminal, overwrite=overwrite, base_name=base_name)
    if as_json:
        terminal.document(export_document(summary, opened.project))
    else:
        show_export(terminal, summary, opened.recipe.task)


def _kind(format_: Format | None, *, merge: bool) -> str:
    if merge == (format_ is not None):
        raise MeloError(
            "--format and --merge do not go together" if merge else "there are three ways to export",
            where="melo export",
            mend="give one of --format peft, --format routed and --merge",
        )
    return "merged" if format_ is None else format_.value


def _write(
    kind: str,
    opened: OpenProject,
    folder: Path,
    terminal: Terminal,
    *,
    overwrite: bool,
    base_name: str | None,
) -> ExportSummary:
    from melo_cli.exporting import export_merged, export_peft, export_routed

    if kind == Format.PEFT:
        return export_peft(opened, folder, terminal, overwrite=overwrite, base_name=base_name)
    if kind == Format.ROUTED:
        return export_routed(opened, folder, terminal, overwrite=overwrite)
    return export_merged(opened, folder, terminal, overwrite=overwrite)
