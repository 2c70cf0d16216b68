"""What a run of `melo edit` is expected to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.units import about_bytes, about_duration

if TYPE_CHECKING:
    from melo_cli.editing.time_estimate import Forecast


def forecast_fields(found: Forecast) -> list[tuple[str, str]]:
    """`melo edit --estimate`."""
    pairs = [
        ("edits", f"{found.edits:,}"),
        ("time", f"about {about_duration(found.seconds)}, beside loading and learning scope"),
        ("a group", f"{about_duration(found.group_seconds)} for {found.group}"),
    ]
    if found.needs is None:
        return pairs
    return [
        *pairs,
        (
            "memory",
            f"about {about_bytes(found.needs.peak)}, of it {about_bytes(found.needs.model)} the model",
        ),
        ("disk", f"about {about_bytes(found.needs.disk)}"),
    ]


def forecast_document(found: Forecast) -> dict[str, Any]:
    """`melo edit --estimate --json`; times in seconds, sizes in bytes."""
    needs = found.needs
    return {
        "edits": found.edits,
        "seconds": found.seconds,
        "group": found.group,
        "group_seconds": found.group_seconds,
        "memory_bytes": needs.peak if needs is not None else None,
        "model_bytes": needs.model if needs is not None else None,
        "work_bytes": needs.work if needs is not None else None,
        "disk_bytes": needs.disk if needs is not None else None,
    }
