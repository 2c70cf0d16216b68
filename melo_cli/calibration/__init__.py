"""Choosing the key by measuring: where it is taken, how tokens become one vector, how far a cluster fires."""

from melo_cli.calibration.calibrate import Calibration, SweepRow
from melo_cli.calibration.learnable import calibration_rows, learnable
from melo_cli.calibration.plot import plot_sweep
from melo_cli.calibration.project import calibration_for, put_in_force, settled, stored_requests
from melo_cli.calibration.seen import SeenPrompts

__all__ = [
    "Calibration",
    "SeenPrompts",
    "SweepRow",
    "calibration_for",
    "calibration_rows",
    "learnable",
    "plot_sweep",
    "put_in_force",
    "settled",
    "stored_requests",
]
