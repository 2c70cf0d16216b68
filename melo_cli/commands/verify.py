"""`melo verify`: check every file and every reference of a project, and repair it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.commands._options import BaseOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import MeloError
from melo_cli.runtime.projects import store_path
from melo_cli.ui.maintenance import findings_view, repair_view, verify_view
from melo_cli.ui.output import make_renderer
from melo_cli.ui.renderer import Renderer

if TYPE_CHECKING:
    from melo_store.maintenance.repair import Repair


def verify(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair the project, after showing what is lost.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check that files are there and have their sizes, and no more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Repair without asking.")] = False,
    project: ProjectOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a project, and that its edits, blocks and index agree.

    The base model is compared with its fingerprint if it is on this machine:
    in its folder, the one named with --base, or the hub's local cache.
    Nothing is downloaded to check it. With --quick, no file is read: the
    check takes no longer for a large project.

    With --repair, clusters, index and edit statuses are rebuilt from the
    other files. Edits whose text or block is lost are dropped and listed, and
    earlier snapshots are no longer kept. Broken files stay until `melo gc`.
    """
    renderer = make_renderer(json=as_json)
    if yes and not repair:
        raise MeloError("it confirms a repair, but --repair is not given", where="--yes", hint="add --repair")
    if quick and repair:
        raise MeloError(
            "a repair needs the whole check", where="--quick", hint="leave out --quick or --repair"
        )
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_cli.runtime.base_check import QUICK, check_base
    from melo_store.maintenance.verify import verify as check

    root = store_path(chosen.path)
    findings = check(root, quick=quick)
    renderer.show(findings_view(findings))
    left, done = findings, None
    if repair and findings:
        done = _repair(renderer, root, context.obj, yes=yes)
        left = check(root)
        renderer.show(findings_view(left, "still wrong"))
    checked = QUICK if quick else check_base(root, base or _beside(root, chosen.path))
    if checked.finding is not None:
        findings, left = [*findings, checked.finding], [*left, checked.finding]
    renderer.show(verify_view(findings, left, checked, with_repair=repair, repair=done))
    if left:
        raise typer.Exit(1)


def _beside(root: Path, path: Path) -> str | None:
    """The base model of an exported folder, which lies around its project."""
    return str(path) if root != path else None


def _repair(renderer: Renderer, root: Path, command: str, *, yes: bool) -> Repair:
    """Show what a repair costs, ask, and do it."""
    from melo_cli.versions import library_versions
    from melo_store.maintenance.repair import plan, repair

    planned = plan(root)
    renderer.show(repair_view(planned))
    if not yes:
        renderer.confirm("Repair the project?", where="melo verify --repair", hint="add --yes")
    return repair(root, versions=library_versions(), command=command)
