"""What the upkeep of a store found and did: `melo gc` and `melo verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Table
from melo_cli.ui.terminal import Terminal
from melo_cli.units import human_bytes

if TYPE_CHECKING:
    from melo_cli.runtime.base_check import BaseCheck
    from melo_store.maintenance.gc import Collected
    from melo_store.maintenance.repair import Repair
    from melo_store.maintenance.verify import Finding


def show_collected(terminal: Terminal, done: Collected, *, dry_run: bool) -> None:
    """`melo gc`: what was merged, dropped and removed; `--dry-run` lists every file."""
    size = human_bytes(sum(each.size for each in done.garbage))
    pairs = [
        *(
            (f"merged {merge.role}", f"{len(merge.files)} files, {human_bytes(merge.size)}")
            for merge in done.merged
        ),
        *((("snapshots dropped", f"{done.dropped}, those before {done.oldest}"),) if done.dropped else ()),
        ("files removed", f"{len(done.garbage)}, {size}"),
    ]
    if dry_run and done.garbage:
        rows = [(each.path, str(each.size)) for each in done.garbage]
        terminal.table(Table(("file", "bytes"), rows, right=frozenset(("bytes",))))
    terminal.fields(pairs)
    if dry_run:
        terminal.note("a dry run: nothing has been changed")


def collected_document(done: Collected, *, dry_run: bool) -> dict[str, Any]:
    """`melo gc --json`."""
    return {
        "dry_run": dry_run,
        "merged": [
            {"role": merge.role, "files": [entry.path for entry in merge.files], "bytes": merge.size}
            for merge in done.merged
        ],
        "snapshots_dropped": done.dropped,
        "oldest_snapshot": done.oldest,
        "removed": [{"path": each.path, "bytes": each.size} for each in done.garbage],
        "bytes": sum(each.size for each in done.garbage),
    }


def findings_table(findings: Sequence[Finding], title: str | None = None) -> Table:
    """`melo verify`: one row a broken file."""
    rows = [(finding.file, finding.problem, finding.lost) for finding in findings]
    return Table(("file", "problem", "lost"), rows, title)


def show_base_check(terminal: Terminal, checked: BaseCheck) -> None:
    """`melo verify`: that the base model is another one, or why that is not known."""
    if checked.finding is not None:
        terminal.table(findings_table([checked.finding], "base model"))
    if checked.unchecked is not None:
        terminal.note(f"base model not checked: {checked.unchecked}")


def verify_document(findings: Sequence[Finding], checked: BaseCheck) -> dict[str, Any]:
    """`melo verify --json`."""
    return {
        "findings": [asdict(finding) for finding in findings],
        "base": {
            "checked": checked.unchecked is None,
            "folder": None if checked.folder is None else str(checked.folder),
            "why_not": checked.unchecked,
        },
    }


def repair_fields(repair: Repair) -> list[tuple[str, str]]:
    """`melo verify --repair`: what it costs, before it is done."""
    pairs = [
        ("edits lost", ", ".join(repair.lost)),
        ("edits without their block, to be reverted", ", ".join(repair.unanswered)),
        ("blocks lost", ", ".join(repair.lost_blocks)),
        ("back to snapshot", "" if repair.back_to is None else str(repair.back_to)),
        ("edits lost from", repair.edits_after or ""),
        ("snapshots no longer kept", str(repair.snapshots or "")),
        ("made again from the rest", ", ".join(repair.rebuilt)),
    ]
    return [(name, value) for name, value in pairs if value] or [("lost", "nothing")]


def repair_document(repair: Repair | None) -> dict[str, Any] | None:
    """`melo verify --repair --json`; None where nothing was wrong."""
    return None if repair is None else asdict(repair)
