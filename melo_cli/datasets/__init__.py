"""Data sets: edits, unrelated prompts and accurate text, from files or the hub, in published formats."""

from __future__ import annotations

from melo_cli.datasets.loading import (
    load_accurate,
    load_calibration,
    load_edits,
    load_hard,
    load_locality,
    load_rows,
)
from melo_cli.datasets.request import EditRequest, Number, aliases_in
from melo_cli.datasets.subject_slots import filled_in

__all__ = [
    "EditRequest",
    "Number",
    "aliases_in",
    "filled_in",
    "load_accurate",
    "load_calibration",
    "load_edits",
    "load_hard",
    "load_locality",
    "load_rows",
]
