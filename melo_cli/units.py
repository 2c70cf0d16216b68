"""Sizes, times, shares and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def human_bytes(size: float) -> str:
    """A size to read: `84.2 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_duration(seconds: float) -> str:
    """A time to read: `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def about_bytes(size: float) -> str:
    """A size to two figures: `1.2 GB`, `140 MB`."""
    return human_bytes(_two_figures(size)).replace(".0 ", " ")


def about_duration(seconds: float) -> str:
    """A time to two figures at most, in its own unit: `20 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{_two_figures(seconds):g} s"
    if seconds < 100 * 60:
        return f"{_two_figures(seconds / 60):g} min"
    return f"{_two_figures(seconds / 3600):g} h"


def _two_figures(number: float) -> float:
    return float(f"{number:.2g}")


def percent(share: float | None) -> str:
    """A share in percent, without the sign, with one decimal; 100 and 0 stand for all and none alone. Empty
    for no share."""
    if share is None:
        return ""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}"
    return f"{min(max(100 * share, 0.1), 99.9):.1f}"


def listed(parts: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"
