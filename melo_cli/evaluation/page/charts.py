"""The report's charts, drawn as inline SVG: colours come from the page's style, so they follow its theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from melo_cli.evaluation.decision_measures import Measure
from melo_cli.evaluation.frontier import FrontierPoint
from melo_cli.evaluation.results import Result
from melo_cli.evaluation.statistics import wilson_interval

_WIDTH = 760
_LEFT, _RIGHT = 64, 16
_GROUPS = 20
_BINS = 40


@dataclass(frozen=True)
class _Scale:
    """Maps values to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def retention_chart(edits: Sequence[Result]) -> str:
    """Share of edits answered as asked by the order in which they were made, with its 95% interval."""
    height = 240
    across = _Scale(1, max(len(edits), 2), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(0, 1, height - 44, 30)
    groups = np.array_split(np.arange(len(edits)), group_count(len(edits)))
    at = [across(float(group.mean()) + 1) for group in groups]
    edited = [sum(bool(edits[i].edited_right) for i in group) for group in groups]
    base = [sum(bool(edits[i].base_right) for i in group) for group in groups]
    bounds = [wilson_interval(right, len(group)) for right, group in zip(edited, groups, strict=True)]
    band = [(x, up(low)) for x, (low, _) in zip(at, bounds, strict=True)]
    band += [(x, up(high)) for x, (_, high) in reversed(list(zip(at, bounds, strict=True)))]
    parts = [
        *_percent_axis(up, "edits answered as asked"),
        *_ticks(across, _whole_ticks(1, len(edits)), height - 44),
        _label(_WIDTH / 2, height - 8, "edit, in the order made", "middle"),
        f'<polygon class="band" points="{_points(band)}"/>',
        _line([(x, up(n / len(g))) for x, n, g in zip(at, base, groups, strict=True)], "base"),
        _line([(x, up(n / len(g))) for x, n, g in zip(at, edited, groups, strict=True)], "edit"),
    ]
    for x, right, group in zip(at, edited, groups, strict=True):
        tooltip = f"edits {group[0] + 1} to {group[-1] + 1}: {right} of {len(group)} answered as asked"
        dot = f'<circle class="dot edit" cx="{x}" cy="{up(right / len(group))}" r="3.5">'
        parts.append(f"{dot}<title>{tooltip}</title></circle>")
    return _svg(height, "Retention by edit order", parts)


def group_count(edits: int) -> int:
    """Into how many groups of neighbours the edits are split: some ten edits each, at most 20 groups."""
    return max(min(_GROUPS, edits // 10), min(edits, 4))


def nearness_chart(groups: Sequence[tuple[str, str, Sequence[Result]]], measure: Measure) -> str:
    """Histograms of what the rule compares, one under the other, with its limit as a line through all.

    Args:
        groups: class (of the style), name and rows of each group; groups without an edit near are left out.
    """
    shown = [
        (style, name, [value for row in rows if (value := measure.of(row)) is not None])
        for style, name, rows in groups
    ]
    shown = [group for group in shown if group[2]]
    row_height, top = 74, 30
    bottom = top + row_height * len(shown)
    high = 1.0 if measure.rising else _reach([value for _, _, values in shown for value in values])
    across = _Scale(0, high, _LEFT + 64, _WIDTH - _RIGHT)
    parts: list[str] = []
    for place, (style, name, values) in enumerate(shown):
        parts += _histogram(across, top + place * row_height, row_height - 16, style, name, values, measure)
    limit = across(measure.limit)
    left, right = "an edit answers", "the radius: beyond it the unedited model answers"
    axis = "distance to the nearest edit, in radii"
    if measure.rising:
        left, right = "the unedited model answers", "an edit answers"
        axis = "probability that the prompt asks what the nearest edit asks"
    parts += [
        f'<line class="limit" x1="{limit}" y1="{top - 12}" x2="{limit}" y2="{bottom}"/>',
        _label(limit - 6, top - 16, left, "end"),
        _label(limit + 6, top - 16, right, "start"),
        *_ticks(across, np.arange(0, high + 0.01, _step(high)).tolist(), bottom),
        _label((across(0) + _WIDTH - _RIGHT) / 2, bottom + 36, axis, "middle"),
    ]
    return _svg(bottom + 46, "How near prompts are to edits", parts)


def frontier_chart(curves: Sequence[tuple[str, str, Sequence[FrontierPoint]]], ceiling: float) -> str:
    """Share of rephrases reached against share of negatives that fire, from limit to limit.

    Args:
        curves: class (of the style), name and points of each kind of negatives.
        ceiling: share of rephrases whose nearest edit is right.
    """
    height = 330
    shown = [curve for curve in curves if curve[2]]
    across = _Scale(0, 0.5, _LEFT, _WIDTH - _RIGHT)
    up = _Scale(0, 1, height - 48, 30)
    parts = [
        *_percent_axis(up, "rephrases that reach the right edit"),
        *_ticks(across, [0, 0.1, 0.2, 0.3, 0.4, 0.5], height - 48, percent=True),
        _label(_WIDTH / 2, height - 10, "negatives that fire though they should not", "middle"),
        f'<line class="ceiling" x1="{_LEFT}" y1="{up(ceiling)}" x2="{_WIDTH - _RIGHT}" y2="{up(ceiling)}"/>',
        _label(_WIDTH - _RIGHT, up(ceiling) - 6, f"nearest edit is right: {ceiling:.0%}", "end"),
    ]
    for place, (style, name, points) in enumerate(shown):
        inside = [point for point in points if point.fired <= across.high]
        parts.append(_line([(across(point.fired), up(point.reached)) for point in inside], style))
        y = up(0) - 18 * (len(shown) - place)
        parts.append(f'<rect class="{style}" x="{_WIDTH - 190}" y="{y - 9}" width="12" height="12" rx="3"/>')
        parts.append(_label(_WIDTH - 172, y + 1, name, "start"))
        parts += _present(across, up, style, name, inside)
    return _svg(height, "Generality against false fires", parts)


def _present(
    across: _Scale, up: _Scale, style: str, name: str, points: Sequence[FrontierPoint]
) -> Iterator[str]:
    """The mark of the present limit on a curve."""
    for point in points:
        if point.present:
            tooltip = f"as it is, {name}: {point.reached:.1%} reached, {point.fired:.1%} fire"
            circle = f'<circle class="dot {style}" cx="{across(point.fired)}" cy="{up(point.reached)}" r="6">'
            yield f"{circle}<title>{tooltip}</title></circle>"


def _histogram(
    across: _Scale,
    top: float,
    height: float,
    style: str,
    name: str,
    values: Sequence[float],
    measure: Measure,
) -> Iterator[str]:
    edges = np.linspace(0, across.high, _BINS + 1)
    counts, _ = np.histogram(np.minimum(values, across.high), bins=edges)
    tall = _Scale(0, max(int(counts.max()), 1), top + height, top)
    inside = sum(measure.fires(value, measure.limit) for value in values) / len(values)
    yield _label(_LEFT + 52, top + height - 22, name, "end", "name")
    yield _label(_LEFT + 52, top + height - 6, f"{inside:.0%} inside", "end")
    wide = across(edges[1]) - across(edges[0]) - 1
    unit = "" if measure.rising else " radii"
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            beyond = high == edges[-1] and not measure.rising
            span = f"{low:.2f}{unit} or more" if beyond else f"{low:.2f} to {high:.2f}{unit}"
            size = f'width="{wide:.1f}" height="{tall(0) - tall(count):.1f}"'
            bar = f'<rect class="{style}" x="{across(low)}" y="{tall(count)}" {size}>'
            yield f"{bar}<title>{count} of {len(values)} {name}: {span}</title></rect>"
    yield f'<line class="axis" x1="{across(0)}" y1="{tall(0)}" x2="{across(across.high)}" y2="{tall(0)}"/>'


def _reach(values: Sequence[float]) -> float:
    """How far the axis goes: most of the distances, never less than twice the radius."""
    finite = [value for value in values if np.isfinite(value)]
    return float(min(max(np.ceil(2 * np.quantile(finite, 0.97)) / 2 if finite else 2, 2), 12))


def _step(high: float) -> float:
    return next(step for step, most in ((0.2, 1), (0.5, 4), (1.0, 8), (2.0, np.inf)) if high <= most)


def _whole_ticks(low: int, high: int) -> list[float]:
    return sorted({float(round(tick)) for tick in np.linspace(low, max(high, low), 6)})


def _percent_axis(up: _Scale, name: str) -> Iterator[str]:
    yield _label(_LEFT, up(1) - 14, name, "start")
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = up(share)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>'
        yield _label(_LEFT - 8, y + 4, f"{share:.0%}", "end")


def _ticks(across: _Scale, values: Sequence[float], y: float, *, percent: bool = False) -> Iterator[str]:
    for value in values:
        yield _label(across(value), y + 18, f"{value:.0%}" if percent else f"{value:g}", "middle")


def _line(points: Sequence[tuple[float, float]], style: str) -> str:
    return f'<polyline class="line {style}" points="{_points(points)}"/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _label(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{title}">'
    return f"{head}{''.join(parts)}</svg>"
