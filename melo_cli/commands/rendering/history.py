"""A project's state and its snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Table, human_bytes, shortened

if TYPE_CHECKING:
    from store.project import Project
    from store.records import SnapshotInfo


def status_fields(project: Project) -> list[tuple[str, str]]:
    """`melo status`: what a project holds, in named lines."""
    counts, recipe = project.info.counts, _sections(project)
    pairs = [
        ("task", str(project.recipe["task"])),
        ("base model", project.base.describe()),
        ("snapshot", f"{project.snapshot}, {_made(project.info)}"),
        ("live edits", str(counts["live"])),
        *((_words(name), str(counts[name]) if counts[name] else "") for name in _OTHER_STATUSES),
        ("blocks", str(counts["blocks"])),
        ("clusters", str(counts["clusters"])),
        ("key", f"{recipe['key']['layer']}, {recipe['key']['pooling']}, radius {recipe['key']['radius']:g}"),
        ("block", f"rank {recipe['lora']['rank']}, alpha {recipe['lora']['alpha']:g}"),
        ("size", human_bytes(project.size_bytes())),
    ]
    return [(name, value) for name, value in pairs if value]


def status_document(project: Project) -> dict[str, Any]:
    """`melo status --json`."""
    return {
        "project": project.name,
        "path": str(project.path),
        "task": project.recipe["task"],
        "base": {
            "name_or_path": project.base.name_or_path,
            "revision": project.base.revision,
            "fingerprint": dict(project.base.fingerprint),
        },
        "snapshot": project.snapshot,
        "created_at": project.info.created_at.isoformat(),
        "counts": dict(project.info.counts),
        "key_dim": project.key_dim,
        "bytes": project.size_bytes(),
        "versions": dict(project.info.versions),
        "recipe": dict(project.recipe),
    }


def history_table(history: Sequence[SnapshotInfo]) -> Table:
    """`melo log`: one row a snapshot."""
    rows = [
        (
            str(snapshot.number),
            _made(snapshot),
            snapshot.action,
            str(snapshot.counts["live"]),
            str(snapshot.counts["failed"]),
            shortened(snapshot.command or ""),
        )
        for snapshot in history
    ]
    return Table(
        ("snapshot", "made", "action", "live", "failed", "command"),
        rows,
        right=frozenset(("snapshot", "live", "failed")),
    )


def snapshot_document(snapshot: SnapshotInfo) -> dict[str, Any]:
    """One entry of `melo log --json`."""
    return {
        "snapshot": snapshot.number,
        "parent": snapshot.parent,
        "created_at": snapshot.created_at.isoformat(),
        "action": snapshot.action,
        "counts": dict(snapshot.counts),
        "seed": snapshot.seed,
        "command": snapshot.command,
        "versions": dict(snapshot.versions),
        "detail": dict(snapshot.detail),
        "recipe": dict(snapshot.recipe),
    }


_OTHER_STATUSES = ("already_right", "failed", "superseded", "reverted")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _made(snapshot: SnapshotInfo) -> str:
    return f"{snapshot.created_at:%Y-%m-%d %H:%M:%S} UTC"


def _sections(project: Project) -> dict[str, Any]:
    return dict(project.recipe)
