"""What a run of `melo edit` is expected to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Fields, View
from melo_cli.units import about_bytes, about_duration

if TYPE_CHECKING:
    from melo_cli.editing.time_estimate import Forecast


def forecast_view(forecast: Forecast) -> View:
    """`melo edit --estimate`; the document has times in seconds and sizes in bytes."""
    return View([Fields(_fields(forecast))], _document(forecast))


def _fields(forecast: Forecast) -> list[tuple[str, str]]:
    pairs = [
        ("edits", f"{forecast.edits:,}"),
        ("time", f"about {about_duration(forecast.seconds)}, beside loading and learning scope"),
        ("a group", f"{about_duration(forecast.group_seconds)} for {forecast.group}"),
    ]
    if forecast.needs is None:
        return pairs
    return [
        *pairs,
        (
            "memory",
            f"about {about_bytes(forecast.needs.peak)}, of it {about_bytes(forecast.needs.model)} the model",
        ),
        ("disk", f"about {about_bytes(forecast.needs.disk)}"),
    ]


def _document(forecast: Forecast) -> dict[str, Any]:
    needs = forecast.needs
    return {
        "edits": forecast.edits,
        "seconds": forecast.seconds,
        "group": forecast.group,
        "group_seconds": forecast.group_seconds,
        "memory_bytes": needs.peak if needs is not None else None,
        "model_bytes": needs.model if needs is not None else None,
        "work_bytes": needs.work if needs is not None else None,
        "disk_bytes": needs.disk if needs is not None else None,
    }
