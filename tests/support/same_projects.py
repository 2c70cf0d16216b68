"""What two projects must have in common to be the same: everything but times of day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melo_store.project import Project


def content_of(path: Path) -> dict[str, Any]:
    """Edits with the bytes of their keys and token vectors, the bytes of all blocks, and the history."""
    project = Project.open(path)
    return {
        "snapshot": project.snapshot,
        "edits": [_edit(view) for view in project.edits()],
        "blocks": {
            block_id: {
                name: (part.A.tobytes(), part.B.tobytes(), part.scale)
                for name, part in project.block(block_id).slices.items()
            }
            for block_id in project.block_ids()
        },
        "history": [(info.number, info.action, info.counts) for info in project.history()],
    }


def _edit(view: Any) -> tuple[Any, ...]:
    record = view.record
    return (
        view.edit_id,
        view.status,
        view.superseded_by,
        record.prompt,
        record.target,
        record.status,
        record.label,
        record.block,
        record.radius,
        dict(record.metrics),
        record.supersedes,
        None if record.key is None else record.key.tobytes(),
        None if record.tokens is None else record.tokens.tobytes(),
    )
