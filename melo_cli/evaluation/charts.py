"""The charts of an evaluation, drawn by matplotlib: as files, and inside the report's page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from melo_cli.errors import MeloError
from melo_cli.evaluation.decision_measures import Measure
from melo_cli.evaluation.frontier import FrontierPoint
from melo_cli.evaluation.report import EvalReport
from melo_cli.evaluation.results import Result
from melo_cli.evaluation.statistics import wilson_interval

# matplotlib takes half a second to import, which no answer should wait for: it is imported where it draws.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By what they stand for, all different: a page has a variable of the same name for each.
COLOURS = {
    "paper": "#fdfdfc",
    "ink": "#1c2025",
    "soft": "#626b76",
    "rule": "#e1e4e8",
    "edit": "#2563c9",
    "rephrase": "#0f8a72",
    "hard": "#c2570c",
    "same_subject": "#b5487f",
    "unrelated": "#7a6bb5",
    "base": "#9aa3ad",
}
_WIDTH, _POINTS_AN_INCH = 760, 72
_GROUPS = 20
_BINS = 40
# How much of the room between two histograms the taller one takes.
_TALLEST = 0.75
_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        title: for who cannot see it.
        tooltips: words by the `gid` of a part, for a page.
    """

    figure: Figure
    title: str
    tooltips: dict[str, str] = field(default_factory=dict)

    def inline_svg(self) -> str:
        """An `svg` element for a page, whose colours are the page's variables; the same bytes each time."""
        with _style():
            buffer = io.BytesIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            self.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
        svg = ElementTree.fromstring(buffer.getvalue())
        for size in ("width", "height"):
            del svg.attrib[size]
        svg.attrib |= {"role": "img", "aria-label": self.title}
        # Names of groups would be those of the next chart, too.
        for group in svg.iter(f"{{{_SVG}}}g"):
            tooltip = self.tooltips.get(group.attrib.pop("id", ""))
            if tooltip is not None:
                title = ElementTree.Element(f"{{{_SVG}}}title")
                title.text = tooltip
                group.insert(0, title)
        drawn = ElementTree.tostring(svg, encoding="unicode")
        for name, colour in COLOURS.items():
            drawn = drawn.replace(colour, f"var(--{name})")
        return drawn

    def save(self, path: Path) -> None:
        """Write the figure to a file, in the format that its ending names.

        Raises:
            MeloError: the file cannot be written.
        """
        try:
            with _style():
                self.figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise MeloError(f"the plot cannot be written ({error})", where=str(path)) from error


def plot_retention(report: EvalReport, path: Path) -> None:
    """Draw the share of edits still answered as asked against the order in which they were made.

    Raises:
        MeloError: the file cannot be written.
    """
    title = f"{report.project}: retention after {report.asked}"
    retention_chart(report.of_kind("edit"), title).save(path)


def retention_chart(edits: Sequence[Result], title: str | None = None) -> Chart:
    """Share of edits answered as asked by the order in which they were made, with its 95% interval."""
    groups = np.array_split(np.arange(len(edits)), group_count(len(edits)))
    middles = [float(group.mean()) + 1 for group in groups]
    right = [sum(bool(edits[i].edited_right) for i in group) for group in groups]
    base = [sum(bool(edits[i].base_right) for i in group) / len(group) for group in groups]
    shares = [count / len(group) for count, group in zip(right, groups, strict=True)]
    bounds = np.array([wilson_interval(n, len(group)) for n, group in zip(right, groups, strict=True)])
    with _style():
        axes = _axes(250)
        axes.fill_between(middles, bounds[:, 0], bounds[:, 1], color=COLOURS["edit"], alpha=0.15, linewidth=0)
        axes.plot(middles, shares, color=COLOURS["edit"], linewidth=2.2, label="edited, with 95% interval")
        axes.plot(middles, base, color=COLOURS["base"], linestyle="--", label="unedited")
        tooltips = {}
        for number, (x, y, group) in enumerate(zip(middles, shares, groups, strict=True)):
            _dot(axes, x, y, "edit", f"group{number}")
            words = f"edits {group[0] + 1} to {group[-1] + 1}: {right[number]} of {len(group)}"
            tooltips[f"group{number}"] = f"{words} answered as asked"
        ticks = sorted({float(round(tick)) for tick in np.linspace(1, len(edits), 6)})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlim(1 - 0.02 * len(edits), max(len(edits), 2) + 0.02 * len(edits))
        axes.set_xlabel("edit, in the order made")
        _percent_axis(axes, "edits answered as asked")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        if title is not None:
            # A row of its own, however long the project's name.
            _figure_of(axes).suptitle(title, x=0.01, horizontalalignment="left")
    return Chart(_figure_of(axes), "Retention by edit order", tooltips)


def group_count(edits: int) -> int:
    """Into how many groups of neighbours the edits are split: some ten edits each, at most 20 groups."""
    return max(min(_GROUPS, edits // 10), min(edits, 4))


def nearness_chart(groups: Sequence[tuple[str, str, Sequence[Result]]], measure: Measure) -> Chart:
    """Histograms of what the rule compares, one under the other, with its limit as a line through all.

    Args:
        groups: colour, name and rows of each group; groups without an edit near are left out.
    """
    shown = [
        (colour, name, [value for row in rows if (value := measure.of(row)) is not None])
        for colour, name, rows in groups
    ]
    shown = [group for group in shown if group[2]]
    high = 1.0 if measure.rising else _reach([value for _, _, values in shown for value in values])
    tooltips: dict[str, str] = {}
    with _style():
        axes = _axes(80 + 74 * len(shown))
        for level, (colour, name, values) in enumerate(reversed(shown)):
            tooltips |= dict(_histogram(axes, level, high, colour, name, values, measure))
        axes.axvline(measure.limit, color=COLOURS["ink"], linewidth=1.5, linestyle="--")
        left, right = "an edit answers", "the radius: beyond it the unedited model answers"
        axis = "distance to the nearest edit, in radii"
        if measure.rising:
            left, right = "the unedited model answers", "an edit answers"
            axis = "probability that the prompt asks what the nearest edit asks"
        for words, side, shift in ((left, "right", -6), (right, "left", 6)):
            _words(axes, words, (measure.limit, 1), ("data", "axes fraction"), shift, side)
        axes.set_xlabel(axis)
        axes.set_xlim(0, high)
        axes.set_ylim(0, len(shown))
        fired = [sum(measure.fires(value, measure.limit) for value in group[2]) for group in shown]
        names = [
            f"{name}\n{count / len(values):.0%} inside"
            for count, (_, name, values) in zip(fired, shown, strict=True)
        ]
        axes.set_yticks([level + _TALLEST / 2 for level in range(len(shown))], names[::-1])
        axes.spines["bottom"].set_visible(False)
    return Chart(_figure_of(axes), "How near prompts are to edits", tooltips)


def frontier_chart(curves: Sequence[tuple[str, str, Sequence[FrontierPoint]]], ceiling: float) -> Chart:
    """Share of rephrases reached against share of negatives that fire, from limit to limit.

    Args:
        curves: colour, name and points of each kind of negatives.
        ceiling: share of rephrases whose nearest edit is right.
    """
    widest = 0.5
    tooltips = {}
    with _style():
        axes = _axes(330)
        axes.axhline(ceiling, color=COLOURS["soft"], linestyle=":", linewidth=1.5)
        words = f"nearest edit is right: {ceiling:.0%}"
        _words(axes, words, (1, ceiling), ("axes fraction", "data"), 0, "right")
        for colour, name, points in curves:
            inside = [point for point in points if point.fired <= widest]
            if points:
                fired, reached = [p.fired for p in inside], [p.reached for p in inside]
                axes.plot(fired, reached, color=COLOURS[colour], linewidth=2.2, label=name)
            for point in inside:
                if point.present:
                    _dot(axes, point.fired, point.reached, colour, colour, size=11)
                    shares = f"{point.reached:.1%} reached, {point.fired:.1%} fire"
                    tooltips[colour] = f"as it is, {name}: {shares}"
        ticks = np.linspace(0, widest, 6)
        axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
        axes.set_xlim(0, widest)
        axes.set_xlabel("negatives that fire though they should not")
        _percent_axis(axes, "rephrases that reach the right edit")
        axes.legend(loc="lower right")
    return Chart(_figure_of(axes), "Generality against false fires", tooltips)


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's settings, for drawing and for writing."""
    import matplotlib

    soft = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {
        **dict.fromkeys(soft, COLOURS["soft"]),
        "grid.color": COLOURS["rule"],
        "font.size": 12,
        "text.parse_math": False,
        "figure.titlesize": 12,
        "legend.frameon": False,
        "axes.facecolor": "none",
        **{f"axes.spines.{side}": False for side in ("left", "top", "right")},
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "svg.fonttype": "none",
        "svg.hashsalt": "melo",
    }
    with matplotlib.rc_context(settings):
        yield


def _axes(height: float) -> Axes:
    from matplotlib.figure import Figure

    size = (_WIDTH / _POINTS_AN_INCH, height / _POINTS_AN_INCH)
    return Figure(figsize=size, layout="constrained").subplots()


def _figure_of(axes: Axes) -> Figure:
    figure: Any = axes.figure
    drawn: Figure = figure
    return drawn


def _dot(axes: Axes, x: float, y: float, colour: str, gid: str, size: float = 7) -> None:
    edges: Any = {"markeredgecolor": COLOURS["paper"], "markeredgewidth": 1.5, "clip_on": False, "zorder": 3}
    axes.plot([x], [y], "o", color=COLOURS[colour], markersize=size, gid=gid, **edges)


def _words(
    axes: Axes, words: str, at: tuple[float, float], of: tuple[str, str], shift: float, side: str
) -> None:
    """Write beside a point, a little above it."""
    points = "offset points"
    axes.annotate(words, at, xycoords=of, xytext=(shift, 4), textcoords=points, horizontalalignment=side)


def _percent_axis(axes: Axes, name: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(name)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _histogram(
    axes: Axes,
    level: int,
    high: float,
    colour: str,
    name: str,
    values: Sequence[float],
    measure: Measure,
) -> Iterator[tuple[str, str]]:
    """Draw one, and give the tooltips of its bars."""
    edges = np.linspace(0, high, _BINS + 1)
    counts, _ = np.histogram(np.minimum(values, high), bins=edges)
    filled = np.flatnonzero(counts)
    heights = counts[filled] / counts.max() * _TALLEST
    width = high / _BINS
    bars = axes.bar(edges[filled], heights, width * 0.94, level, align="edge", color=COLOURS[colour])
    axes.axhline(level, color=COLOURS["soft"], linewidth=1)
    unit = "" if measure.rising else " radii"
    for bar, bin_index in zip(bars, filled, strict=True):
        low, top = edges[bin_index], edges[bin_index + 1]
        beyond = bin_index == _BINS - 1 and not measure.rising
        span = f"{low:.2f}{unit} or more" if beyond else f"{low:.2f} to {top:.2f}{unit}"
        bar.set_gid(f"{colour}{bin_index}")
        yield f"{colour}{bin_index}", f"{counts[bin_index]} of {len(values)} {name}: {span}"


def _reach(values: Sequence[float]) -> float:
    """How far the axis goes: most of the distances, never less than twice the radius."""
    finite = [value for value in values if np.isfinite(value)]
    return float(min(max(np.ceil(2 * np.quantile(finite, 0.97)) / 2 if finite else 2, 2), 12))
