"""Retention by edit order: are the first edits still there after the last?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from melo_cli.errors import MeloError
from melo_cli.evaluation.report import EvalReport
from melo_cli.evaluation.statistics import wilson_interval

_BINS = 20


def plot_retention(report: EvalReport, path: Path) -> None:
    """Draw the share of edits still answered as asked against the order in which they were made.

    Raises:
        MeloError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second, which no answer should wait for

    figure = Figure(figsize=(7.5, 4.0), layout="constrained")
    axes = figure.subplots()
    _draw(axes, report)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise MeloError(f"the plot cannot be written ({error})", where=str(path)) from error


def _draw(axes: Any, report: EvalReport) -> None:
    edits = report.of_kind("edit")
    right = np.array([row.edited_right for row in edits], dtype=float)
    base = np.array([row.base_right for row in edits], dtype=float)
    groups = np.array_split(np.arange(len(right)), min(_BINS, len(right)))
    middles = [group.mean() + 1 for group in groups]
    shares = np.array([right[group].mean() for group in groups])
    intervals = np.array([wilson_interval(right[group].sum(), len(group)) for group in groups])
    axes.fill_between(middles, intervals[:, 0], intervals[:, 1], color="#4477aa", alpha=0.2, linewidth=0)
    axes.plot(middles, shares, color="#4477aa", marker="o", markersize=4, label="edited, with 95% interval")
    axes.plot(middles, [base[group].mean() for group in groups], color="#999999", label="base")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"edit, in the order made (groups of about {len(groups[0])})")
    axes.set_ylabel("answered as asked")
    axes.set_title(f"{report.project}: retention after {report.edits} edits", loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
