"""`melo verify`: is every byte and every reference of a project as it was written?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption
from melo_cli.commands.rendering.upkeep import findings_table, repair_document, repair_fields
from melo_cli.errors import MeloError
from melo_cli.projects import choose_project, store_path
from melo_cli.terminal import Terminal

if TYPE_CHECKING:
    from store.repair import Repair
    from store.verify import Finding


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

    The base model is held against its fingerprint where its folder is here,
    or is named with --base.

    With --repair, what can be made again from the rest is made again: the
    clusters, the index, what became of edits. Edits whose text or block is
    gone are dropped, each by name; the snapshots before are no longer kept.
    Broken files stay where they are until `melo gc`.
    """
    terminal = Terminal(json=as_json)
    if yes and not repair:
        raise MeloError("it answers nothing", where="--yes", mend="add --repair")
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    from store.verify import verify as check

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
    wrong_base = _base_problem(terminal, root, base or _beside(root, chosen.path))
    if wrong_base is not None:
        findings, left = [*findings, wrong_base], [*left, wrong_base]
        if not as_json:
            terminal.table(findings_table([wrong_base], "base model"))
    if as_json:
        found = [asdict(finding) for finding in findings]
        terminal.document({"findings": found, "repair": repair_document(done)} if repair else found)
    elif not left:
        terminal.note("nothing is wrong")
    if left:
        raise typer.Exit(1)


def _beside(root: Path, path: Path) -> str | None:
    """The base model of an exported folder, which lies around its project."""
    return str(path) if root != path else None


def _base_problem(terminal: Terminal, root: Path, given: str | None) -> Finding | None:
    """Whether the base model is another one than the project was made on."""
    from melo_cli.fingerprint import fingerprint
    from store.errors import BaseMismatchError, DamagedProjectError
    from store.manifest import read_head
    from store.records import BaseReference
    from store.verify import Finding

    try:
        reference = read_head(root).base
    except DamagedProjectError:
        return None
    folder = Path(given or reference.name_or_path).expanduser()
    if not folder.is_dir():
        terminal.info(f"{folder} is no folder here, so the base model is not checked; name it with --base")
        return None
    try:
        reference.require_same(BaseReference(str(folder), None, fingerprint(folder)))
    except BaseMismatchError as error:
        return Finding(str(folder), error.what, "every answer of an edit, until the base model is back")
    return None


def _repair(terminal: Terminal, root: Path, command: str, *, yes: bool) -> Repair:
    """Say what a repair costs, ask, and do it."""
    from melo_cli.versions import library_versions
    from store.repair import plan, repair

    planned = plan(root)
    if not terminal.json:
        terminal.fields(repair_fields(planned))
    if not yes:
        terminal.confirm("repair it so?", otherwise="add --yes")
    return repair(root, versions=library_versions(), command=command)
