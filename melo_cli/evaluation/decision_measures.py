"""The number that a scope rule compares with its limit: a distance in radii, or a probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from melo_cli.evaluation.results import Result


@dataclass(frozen=True)
class Measure:
    """The number by which a prompt is in an edit's scope or not.

    Attributes:
        of: the number of a probe, None where it has none.
        limit: the number in force: an edit answers up to it, or from it on.
        rising: whether an edit answers from the limit on.
    """

    of: Callable[[Result], float | None]
    limit: float
    rising: bool

    def fires(self, value: float, limit: float) -> bool:
        """Whether an edit would answer, were the limit another one."""
        return value >= limit if self.rising else value <= limit

    def closeness(self, row: Result) -> float:
        """Smaller the closer a prompt is to being answered by an edit; infinite where there is no edit."""
        value = self.of(row)
        if value is None:
            return float("inf")
        return -value if self.rising else value


RADII = Measure(lambda row: row.radii, 1.0, rising=False)


def measure_of(results: Sequence[Result]) -> Measure:
    """The measure of the rule that an evaluated project routes by."""
    threshold = next((row.threshold for row in results if row.threshold is not None), None)
    if threshold is None:
        return RADII
    return Measure(lambda row: row.probability, threshold, rising=True)
