"""Which older edit a newer one replaces, and what answers again when the newer one goes.

A newer neuron replaces an older one of the same prompt, and nothing else does: two prompts whose keys
coincide both live. What replaces a neuron is always the first later one of its prompt that is not reverted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from itertools import pairwise

from melo_store.edit_status import EditStatuses
from melo_store.format.segments import Edits, Segment


class Prompts:
    """The numbers of all edits that became neurons, by prompt; blanks around a prompt do not count."""

    def __init__(self, edits: Edits) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for segment in edits.segments():
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Take in the edits of one more segment."""
        prompts = segment.column("prompt")
        for number in segment.neurons.tolist():
            self._numbers[prompts[number - segment.first].strip()].append(number)

    def numbers(self, prompt: str) -> list[int]:
        """Ascending; those that are superseded or reverted too."""
        return self._numbers.get(prompt.strip(), [])

    def replaced(self, reverted: Container[int]) -> dict[int, int]:
        """What replaces what among all that are not reverted: older to newer number."""
        superseded: dict[int, int] = {}
        for numbers in self._numbers.values():
            standing = [number for number in numbers if number not in reverted]
            superseded.update(pairwise(standing))
        return superseded

    def replaced_again(self, number: int, prompt: str, gone: Container[int]) -> int | None:
        """The first later neuron that replaces this one, those in `gone` aside; None: it is live again."""
        return next((n for n in self.numbers(prompt) if n > number and n not in gone), None)


def replaced_by_new(
    edit_statuses: EditStatuses, new: Sequence[tuple[int, str]], prompts: Prompts
) -> dict[int, int]:
    """What new neurons replace, among the live ones and among themselves: older to newer number.

    Args:
        new: numbers and prompts, ascending.
        prompts: those of all edits so far.
    """
    superseded: dict[int, int] = {}
    latest: dict[str, list[int]] = {}
    for number, prompt in new:
        asked = prompt.strip()
        standing = latest.get(asked)
        if standing is None:
            standing = [n for n in prompts.numbers(asked) if edit_statuses.of(n, "solved") == "live"]
        superseded.update(dict.fromkeys(standing, number))
        latest[asked] = [number]
    return superseded
