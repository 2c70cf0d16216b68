"""Which older edit a newer one replaces, and what answers again when the newer one goes.

A newer solved edit replaces an older one that has the same prompt, or another label and a key that counts
as the same (`clusters.TOLERANCE`): the two could not be told apart. That is a relation of two edits alone.
So what replaces an edit is always the first later edit, of those not reverted, that is so related to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence

import numpy as np

from store.clusters import Neuron, Space, distances, tolerances
from store.index import possible_pairs
from store.segments import Edits, Segment
from store.state import Fates


class Prompts:
    """The numbers of all edits that became neurons, by prompt."""

    def __init__(self, edits: Edits) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for segment in edits.segments():
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Take in the edits of one more segment."""
        prompts = segment.column("prompt")
        for number in segment.solved():
            self._numbers[prompts[number - segment.first]].append(number)

    def numbers(self, prompt: str) -> list[int]:
        """Ascending; those that are superseded or reverted too."""
        return self._numbers.get(prompt, [])


def replaced_by_new(
    space: Space, live: Container[int], new: Sequence[tuple[Neuron, str]], prompts: Prompts
) -> dict[int, int]:
    """What new neurons replace, among the live ones and among themselves: older number to newer number.

    Args:
        space: the clusters of the live neurons.
        live: their numbers.
        new: new neurons with their prompts, ascending.
    """
    replaced: dict[int, int] = {}
    by_prompt: dict[str, list[int]] = defaultdict(list)
    near_new = _near_pairs([neuron for neuron, _ in new])
    for at, (neuron, prompt) in enumerate(new):
        same_prompt = [number for number in prompts.numbers(prompt) if number in live] + by_prompt[prompt]
        rivals = [new[other][0] for other in near_new[at] if other < at]
        for number in [*same_prompt, *_same_key(space, neuron), *_replaced(neuron, rivals)]:
            replaced.setdefault(number, neuron.number)
        by_prompt[prompt].append(neuron.number)
    return replaced


def replaced_again(
    space: Space, edits: Edits, fates: Fates, neuron: Neuron, prompt: str, prompts: Prompts, gone: set[int]
) -> int | None:
    """The first later edit that replaces a neuron once those in `gone` are reverted; None: it is live again.

    Args:
        space: the clusters before the change.
    """
    out = fates.reverted | gone
    later = [n for n in prompts.numbers(prompt) if n > neuron.number and n not in out]
    margin = 2 * float(tolerances(neuron.key[None])[0])
    standing = (n for cluster, _ in space.touching(neuron.key, margin) for n in cluster.members)
    others = [n for n in {*standing, *fates.superseded} if n > neuron.number and n not in out]
    near = np.array(others, np.int64)[distances(edits.keys(others), neuron.key) <= margin]
    later += [n for n in near.tolist() if _replaced(edits.neuron(n), [neuron])]
    return min(later, default=None)


def _same_key(space: Space, neuron: Neuron) -> list[int]:
    """Live neurons that this one replaces for their key."""
    near = space.touching(neuron.key, float(tolerances(neuron.key[None])[0]))
    members = [n for cluster, _ in near if cluster.label != neuron.label for n in cluster.members]
    return _replaced(neuron, [space.neurons.neuron(number) for number in members])


def _replaced(newer: Neuron, older: Sequence[Neuron]) -> list[int]:
    """Which of the older neurons have another label and a key that counts as the newer one's."""
    rivals = [each for each in older if each.label != newer.label]
    if not rivals:
        return []
    apart = distances(np.stack([each.key for each in rivals]), newer.key)
    margin = float(tolerances(newer.key[None])[0])
    return [each.number for each, far in zip(rivals, apart.tolist(), strict=True) if far <= margin]


def _near_pairs(neurons: Sequence[Neuron]) -> list[list[int]]:
    """For each neuron the places of those whose keys may count as its own."""
    if not neurons:
        return []
    keys = np.stack([neuron.key for neuron in neurons])
    near = possible_pairs(keys, tolerances(keys))
    return [np.nonzero(row)[0].tolist() for row in near]
