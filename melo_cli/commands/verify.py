"""`melo verify`: is every byte and every reference of a project as it was written?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import choose_project, store_path
from melo_cli.ui.maintenance import (
    findings_table,
    repair_document,
    repair_fields,
    show_base_check,
    verify_document,
)
from melo_cli.ui.terminal import Terminal

if TYPE_CHECKING:
    from melo_store.maintenance.repair import Repair


def verify(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is broken, after saying what that costs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Repair without asking.")] = False,
    project: ProjectOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a project, and what its edits, blocks and index say of each other.

    The base model is held against its fingerprint where it is here: in its
    folder, the one named with --base, or the hub's local cache. Where it is
    not, it is not checked, and nothing is downloaded.

    With --repair, what can be made again from the rest is made again: the
    clusters, the index, what became of edits. Edits whose text or block is
    gone are dropped, each by name; the snapshots before are no longer kept.
    Broken files stay where they are until `melo gc`.
    """
    terminal = Terminal(json=as_json)
    if yes and not repair:
        raise MeloError("it answers nothing", where="--yes", hint="add --repair")
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    from melo_cli.runtime.base_check import check_base
    from melo_store.maintenance.verify import verify as check

    root = store_path(chosen.path)
    findings = check(root)
    done = None
    if not as_json and findings:
        terminal.table(findings_table(findings))
    if repair and findings:
        done = _repair(terminal, root, context.obj, yes=yes)
        left = check(root)
        if not as_json and left:
            terminal.table(findings_table(left, "still wrong"))
    else:
        left = findings
    checked = check_base(root, base or _beside(root, chosen.path))
    if checked.finding is not None:
        findings, left = [*findings, checked.finding], [*left, checked.finding]
    if as_json:
        document = verify_document(findings, checked)
        terminal.document(document | {"repair": repair_document(done)} if repair else document)
    else:
        show_base_check(terminal, checked)
        if not left:
            terminal.note(
                "nothing is wrong" if checked.unchecked is None else "nothing is wrong with the rest"
            )
    if left:
        raise typer.Exit(1)


def _beside(root: Path, path: Path) -> str | None:
    """The base model of an exported folder, which lies around its project."""
    return str(path) if root != path else None


def _repair(terminal: Terminal, root: Path, command: str, *, yes: bool) -> Repair:
    """Say what a repair costs, ask, and do it."""
    from melo_cli.versions import library_versions
    from melo_store.maintenance.repair import plan, repair

    planned = plan(root)
    if not terminal.json:
        terminal.fields(repair_fields(planned))
    if not yes:
        terminal.confirm("repair it so?", otherwise="add --yes")
    return repair(root, versions=library_versions(), command=command)
