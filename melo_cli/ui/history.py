"""A project's state and its snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Fields, Note, Table, View
from melo_cli.ui.text import shortened, to_the_second
from melo_cli.units import human_bytes

if TYPE_CHECKING:
    from melo_store.diff import EditChange
    from melo_store.format.merge_plan import Merge
    from melo_store.overview import Overview
    from melo_store.project import Project
    from melo_store.records import SnapshotInfo


def status_view(project: Overview) -> View:
    """`melo status`: what a project holds."""
    return View([Fields(_status_fields(project))], _status_document(project))


def history_view(history: Sequence[SnapshotInfo]) -> View:
    """`melo log`: the newest snapshot first.

    Args:
        history: oldest first.
    """
    return View([_history_table(history)], _history_document(history))


def difference_view(before: Project, after: Project, changes: Sequence[EditChange]) -> View:
    """`melo diff`: the edits whose status differs between two snapshots."""
    same = Note(f"snapshots {before.snapshot} and {after.snapshot} hold the same edits")
    return View([_changes_table(changes) if changes else same], _changes_document(before, after, changes))


def revert_view(before: Project, after: Project, changes: Sequence[EditChange]) -> View:
    """`melo revert`: the edits whose status it changed."""
    document = _changes_document(before, after, changes)
    if after.snapshot == before.snapshot:
        return View([Note("nothing to do: these edits answer nothing already")], document)
    live = counted(after.info.counts["live"], "live edit")
    return View([_changes_table(changes), Note(f"snapshot {after.snapshot}: {live}")], document)


def _status_fields(project: Overview) -> list[tuple[str, str]]:
    counts = project.info.counts
    recipe: Mapping[str, Any] = project.recipe
    pairs = [
        ("task", str(project.recipe["task"])),
        ("base model", project.base.describe()),
        ("snapshot", f"{project.snapshot}, {_made(project.info)}"),
        ("live edits", str(counts["live"])),
        *((_words(name), str(counts[name]) if counts[name] else "") for name in _OTHER_STATUSES),
        ("blocks", str(counts["blocks"])),
        ("clusters", str(counts["clusters"]) if counts["clusters"] else ""),
        ("scope", _scope(recipe)),
        ("block", f"rank {recipe['lora']['rank']}, alpha {recipe['lora']['alpha']:g}"),
        ("size", human_bytes(project.size_bytes())),
        ("evaluated", _evaluated(project.last_evaluation())),
        ("small files", _small_files(project.mergeable())),
    ]
    return [(name, value) for name, value in pairs if value]


def _evaluated(figures: Mapping[str, Any] | None) -> str:
    """The figures of the last evaluation that matter most, and of which snapshot they are."""
    if figures is None:
        return ""
    edited: Mapping[str, Any] = figures["edited"]
    shares = [
        f"{words} {edited[name]['generation']:.3f}"
        for name, words in (("edit_success", "edit success"), ("generality", "generality"))
        if edited.get(name) is not None
    ]
    fired = edited.get("fired_unrelated")
    shares += [f"false fires {fired:.3f}"] if fired is not None else []
    return f"snapshot {figures['snapshot']}, {figures['protocol']}: {', '.join(shares)}"


def _scope(recipe: Mapping[str, Any]) -> str:
    """The rule by which prompts are routed; projects of format 2 name none, and have a radius."""
    key = recipe["key"]
    if recipe.get("routing", {}).get("scope") == "verified":
        return f"verified, read by {key.get('encoder') or key['layer']}"
    return f"radius {key['radius']:g}, {key['layer']}, {key['pooling']}"


def _status_document(project: Overview) -> dict[str, Any]:
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
        "mergeable": [
            {"role": merge.role, "files": len(merge.files), "bytes": merge.size}
            for merge in project.mergeable()
        ],
        "evaluation": project.last_evaluation(),
        "versions": dict(project.info.versions),
        "recipe": dict(project.recipe),
    }


def _history_table(history: Sequence[SnapshotInfo]) -> Table:
    rows = [
        (
            str(snapshot.number),
            to_the_second(snapshot.created_at),
            snapshot.action,
            str(snapshot.recipe.get("name", "")),
            str(added or ""),
            "" if success is None else f"{success:.1%}",
            str(snapshot.counts["live"]),
            shortened(snapshot.command or ""),
        )
        for snapshot, added, success in _with_success(history)
    ]
    return Table(
        ("snapshot", "made (UTC)", "action", "recipe", "added", "ES", "live", "command"),
        rows[::-1],
        right=frozenset(("snapshot", "added", "ES", "live")),
        cut=frozenset(("recipe", "command")),
    )


def _history_document(history: Sequence[SnapshotInfo]) -> list[dict[str, Any]]:
    every = [
        {**_snapshot_document(snapshot), "added": added, "edit_success": success}
        for snapshot, added, success in _with_success(history)
    ]
    return every[::-1]


def _changes_table(changes: Sequence[EditChange]) -> Table:
    rows = [
        (
            change.kind,
            change.record.edit_id,
            shortened(change.record.prompt),
            shortened(change.record.target),
            _words(change.before or "not there"),
            f"superseded by {change.superseded_by}"
            if change.after == "superseded"
            else _words(change.after or "not there"),
        )
        for change in changes
    ]
    return Table(("change", "edit", "prompt", "target", "before", "after"), rows)


def _changes_document(before: Project, after: Project, changes: Sequence[EditChange]) -> dict[str, Any]:
    return {
        "project": after.name,
        "from": before.snapshot,
        "to": after.snapshot,
        **{
            kind: [_change_document(change) for change in changes if change.kind == kind]
            for kind in ("added", "removed", "superseded", "recorded")
        },
    }


def counted(count: int, noun: str) -> str:
    """`1 edit`, `2 edits`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _change_document(change: EditChange) -> dict[str, Any]:
    return {
        "edit_id": change.record.edit_id,
        "prompt": change.record.prompt,
        "target": change.record.target,
        "before": change.before,
        "after": change.after,
        "superseded_by": change.superseded_by,
    }


def _with_success(history: Sequence[SnapshotInfo]) -> Iterator[tuple[SnapshotInfo, int | None, float | None]]:
    """Snapshots, oldest first, with how many edits each added and the share of those that took.

    Both are None for the oldest one where those before it are no longer kept, the share also where none was
    added.
    """
    before: Mapping[str, int] | None = None
    for snapshot in history:
        if before is None and snapshot.parent is not None:
            yield snapshot, None, None
        else:
            added, failed = (
                snapshot.counts[name] - (before or {}).get(name, 0) for name in ("edits", "failed")
            )
            yield snapshot, added, 1 - failed / added if added else None
        before = snapshot.counts


def _snapshot_document(snapshot: SnapshotInfo) -> dict[str, Any]:
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


def _small_files(merges: Sequence[Merge]) -> str:
    """The hint that compaction is worth it; nothing where it would do nothing."""
    files = sum(len(merge.files) for merge in merges)
    return f"{files}; `melo gc` would make {len(merges)} of them" if merges else ""


def _made(snapshot: SnapshotInfo) -> str:
    return f"{to_the_second(snapshot.created_at)} UTC"
