"""What the upkeep of a store finds and does: `melo gc`, `melo verify` and `melo migrate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Element, Fields, Note, Table, View
from melo_cli.units import human_bytes

if TYPE_CHECKING:
    from melo_cli.runtime.base_check import BaseCheck
    from melo_store.maintenance.gc import Collected
    from melo_store.maintenance.repair import Repair
    from melo_store.maintenance.verify import Finding


def collected_view(done: Collected, *, dry_run: bool) -> View:
    """`melo gc`: what was merged, dropped and removed; `--dry-run` lists every file."""
    elements: list[Element] = [Fields(_collected_fields(done))]
    if dry_run:
        elements.append(Note("a dry run: nothing has been changed"))
        if done.garbage:
            rows = [(each.path, str(each.size)) for each in done.garbage]
            elements.insert(0, Table(("file", "bytes"), rows, right=frozenset(("bytes",))))
    return View(elements, _collected_document(done, dry_run=dry_run))


def _collected_fields(done: Collected) -> list[tuple[str, str]]:
    size = human_bytes(sum(each.size for each in done.garbage))
    return [
        *(
            (f"merged {merge.role}", f"{len(merge.files)} files, {human_bytes(merge.size)}")
            for merge in done.merged
        ),
        *((("snapshots dropped", f"{done.dropped}, those before {done.oldest}"),) if done.dropped else ()),
        ("files removed", f"{len(done.garbage)}, {size}"),
    ]


def _collected_document(done: Collected, *, dry_run: bool) -> dict[str, Any]:
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


def findings_view(findings: Sequence[Finding], title: str | None = None) -> View:
    """`melo verify`: one row a broken file, before anything is done about it."""
    return View([_findings_table(findings, title)] if findings else [])


def repair_view(repair: Repair) -> View:
    """`melo verify --repair`: what it costs, before it is done."""
    return View([Fields(_repair_fields(repair))])


def verify_view(
    findings: Sequence[Finding],
    left: Sequence[Finding],
    checked: BaseCheck,
    *,
    with_repair: bool,
    repair: Repair | None,
) -> View:
    """`melo verify`: the check of the base model, and the verdict.

    Args:
        findings: of the first check.
        left: those that are still there at the end.
        with_repair: a repair was asked for.
        repair: what it did; None where nothing was wrong.
    """
    elements: list[Element] = []
    if checked.finding is not None:
        elements.append(_findings_table([checked.finding], "base model"))
    if checked.unchecked is not None:
        elements.append(Note(f"base model not checked: {checked.unchecked}"))
    if not left:
        rest = "" if checked.unchecked is None else " with the rest"
        elements.append(Note(f"nothing is wrong{rest}"))
    repaired = {"repair": None if repair is None else asdict(repair)} if with_repair else {}
    return View(elements, _verify_document(findings, checked) | repaired)


def migration_view(project: str, before: int, after: int) -> View:
    """`melo migrate`: the formats before and after."""
    same = f"nothing to do: it has format {after} already"
    note = Note(same if before == after else f"format {before} -> {after}")
    return View([note], {"project": project, "from": before, "to": after})


def _findings_table(findings: Sequence[Finding], title: str | None) -> Table:
    rows = [(finding.file, finding.problem, finding.lost) for finding in findings]
    return Table(("file", "problem", "lost"), rows, title)


def _verify_document(findings: Sequence[Finding], checked: BaseCheck) -> dict[str, Any]:
    return {
        "findings": [asdict(finding) for finding in findings],
        "base": {
            "checked": checked.unchecked is None,
            "folder": None if checked.folder is None else str(checked.folder),
            "why_not": checked.unchecked,
        },
    }


def _repair_fields(repair: Repair) -> list[tuple[str, str]]:
    pairs = [
        ("edits lost", ", ".join(repair.lost)),
        ("edits without their block, to be reverted", ", ".join(repair.unanswered)),
        ("blocks lost", ", ".join(repair.lost_blocks)),
        ("back to snapshot", "" if repair.back_to is None else str(repair.back_to)),
        ("edits lost from", repair.edits_after or ""),
        ("snapshots no longer kept", str(repair.snapshots or "")),
        ("rebuilt from the other files", ", ".join(repair.rebuilt)),
    ]
    return [(name, value) for name, value in pairs if value] or [("lost", "nothing")]
