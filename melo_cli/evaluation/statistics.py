"""Shares with their intervals, and how alike two answers are."""

from __future__ import annotations

import math
import random
import re
import string
from collections import Counter
from collections.abc import Sequence

_Z95 = 1.959963984540054
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share (Wilson 1927): sound near 0 and 1, where edits mostly are."""
    if n == 0:
        return (0.0, 1.0)
    share = successes / n
    ratio = _Z95**2 / n
    center = share + ratio / 2
    half = _Z95 * math.sqrt(share * (1 - share) / n + ratio / (4 * n))
    low, high = (center - half) / (1 + ratio), (center + half) / (1 + ratio)
    return (max(0.0, min(low, share)), min(1.0, max(high, share)))


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return math.fsum(values) / len(values) if values else None


def drawn(count: int, most: int, seed: str) -> Sequence[int]:
    """Rows of a sample of at most `most` of `count`, in order; the same for the same seed."""
    return range(count) if most >= count else sorted(random.Random(seed).sample(range(count), most))


def token_f1(answer: str, target: str) -> float:
    """F1 of word overlap, as SQuAD scores it: lower case, without punctuation and articles."""
    ours, theirs = _words(answer), _words(target)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def _words(text: str) -> list[str]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return _ARTICLES.sub(" ", bare).split()
