"""The sweep as a plot: rephrases reached against hard negatives that fire, one line a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melo_cli.calibration.calibrate import Calibration, SweepRow
from melo_cli.errors import StorageError

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def plot_sweep(found: Calibration, path: Path) -> None:
    """Draw the sweep.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second, which no answer should wait for

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    _draw(axes, found)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"the plot cannot be written ({error.strerror})", where=str(path)) from error


def _draw(axes: Any, found: Calibration) -> None:
    best = sorted(found.sweep, key=lambda row: -row.reach)
    for row, colour in zip(best, _COLOURS, strict=False):
        reach, fires = zip(*row.curve, strict=True) if row.curve else ((), ())
        axes.plot(fires, reach, color=colour, label=_described(row))
    at = found.chosen.false_fires.get("hard", 0.0)
    axes.plot([at], [found.chosen.reach], "o", color="black", label="chosen, on all folds")
    axes.set_xlim(-0.01, 0.31)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("hard negatives that fire")
    axes.set_ylabel("rephrases led to the right answer")
    axes.set_title("Keys by calibration, as the radius grows", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _described(row: SweepRow) -> str:
    """A candidate in a few words."""
    return f"{row.candidate.layer}, {row.candidate.pooling}, {row.candidate.method}"
