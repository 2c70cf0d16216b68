"""`melo verify`: is every byte and every reference of a project as it was written?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from melo_cli.commands._options import JsonOption, ProjectOption
from melo_cli.projects import choose_project
from melo_cli.terminal import Table, Terminal


def verify(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Check every file of a project, and what its edits, blocks and index say of each other."""
    from store.verify import verify as check

    terminal = Terminal(json=as_json)
    chosen = choose_project(project)
    terminal.heading(f"project {chosen}")
    findings = check(chosen.path)
    if as_json:
        terminal.document([asdict(finding) for finding in findings])
    elif findings:
        terminal.table(Table(["file", "problem", "lost"], [(f.file, f.problem, f.lost) for f in findings]))
    else:
        terminal.note("nothing is wrong")
    if findings:
        raise typer.Exit(1)
