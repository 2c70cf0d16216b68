"""The nearest known name to one that a user mistyped: the "did you mean" of every error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known names most like `name`, best first, without regard to case.

    Args:
        name: what was written.
        known: what could have been meant; doubles count once.
        count: at most so many are returned.
        cutoff: likeness from 0 (anything) to 1 (the same letters) that a name must reach.
    """
    candidates = list(dict.fromkeys(known))
    wanted = name.lower()

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, candidate.lower(), wanted).ratio()

    ranked = sorted(((likeness(candidate), candidate) for candidate in candidates), key=lambda pair: -pair[0])
    return [candidate for score, candidate in ranked[:count] if score >= cutoff]


def did_you_mean(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> str | None:
    """A clause for the `hint` of an error, "did you mean a or b?", or None where nothing is near."""
    names = nearest(name, known, count=count, cutoff=cutoff)
    return f"did you mean {' or '.join(names)}?" if names else None
