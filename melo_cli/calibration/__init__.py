"""Learning what an edit answers for, and how sure the router has to be."""

from melo_cli.calibration.learnable import calibration_rows, learnable
from melo_cli.calibration.project import Calibration, calibrate, put_in_force, stored_requests
from melo_cli.calibration.seen import SeenPrompts

__all__ = [
    "Calibration",
    "SeenPrompts",
    "calibrate",
    "calibration_rows",
    "learnable",
    "put_in_force",
    "stored_requests",
]
