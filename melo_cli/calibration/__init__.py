"""Calibration: learning the scope model, and choosing the threshold."""

from melo_cli.calibration.run import (
    Calibration,
    ReaderFactory,
    calibrate,
    put_in_force,
    reader_here,
    stored_requests,
)
from melo_cli.calibration.seen_prompts import SeenPrompts
from melo_cli.calibration.training_rephrases import calibration_rows, learnable

__all__ = [
    "Calibration",
    "ReaderFactory",
    "SeenPrompts",
    "calibrate",
    "calibration_rows",
    "learnable",
    "put_in_force",
    "reader_here",
    "stored_requests",
]
