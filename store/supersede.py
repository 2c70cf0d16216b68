"""Which older edit a newer one replaces, and what answers again when the newer one goes.

A newer solved edit replaces an older one that has the same prompt, or another label and a key that counts
as the same (`clusters.TOLERANCE`): the two could not be told apart. That is a relation of two edits alone.
So what replaces an edit is always the first later edit, of those not reverted, that is so related to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence

import numpy as np

from store.clusters import Floats, Neuron, Numbers, Space, distances, row_norms, tolerances
from store.fates import Fates
from store.records import Vector
from store.segments import Edits, Segment

_PAIRS = 1 << 20
_CELLS = 1 << 22
_ROOM = 1.01  # of a tolerance: keys that count as the same have the same one to a part in ten thousand


class Prompts:
    """The numbers of all edits that became neurons, by prompt."""

    def __init__(self, edits: Edits) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for segment in edits.segments():
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Take in the edits of one more segment."""
        prompts = segment.column("prompt")
        for number in segment.neurons():
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
    replaced = _replaced_among(
        np.array([neuron.number for neuron, _ in new], np.int64),
        np.stack([neuron.key for neuron, _ in new]),
        [neuron.label for neuron, _ in new],
        [prompt for _, prompt in new],
    )
    for neuron, prompt in new:
        same_prompt = [number for number in prompts.numbers(prompt) if number in live]
        for number in [*same_prompt, *_same_key(space, neuron)]:
            replaced.setdefault(number, neuron.number)
    return replaced


def replaced_in_all(edits: Edits, reverted: Container[int]) -> dict[int, int]:
    """What replaces what among all edits that became neurons and are not reverted: older to newer number."""
    numbers: list[int] = []
    labels: list[tuple[int, ...]] = []
    prompts: list[str] = []
    for segment in edits.segments():
        said, asked = segment.column("label"), segment.column("prompt")
        for number in segment.neurons():
            if number not in reverted:
                numbers.append(number)
                labels.append(tuple(said[number - segment.first]))
                prompts.append(asked[number - segment.first])
    return _replaced_among(np.array(numbers, np.int64), edits.keys(numbers), labels, prompts)


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


def _replaced_among(
    numbers: Numbers, keys: Vector, labels: Sequence[tuple[int, ...]], prompts: Sequence[str]
) -> dict[int, int]:
    """The first later one that replaces each neuron, where one does.

    Args:
        numbers: int64 [n], ascending.
        keys: float32 [n, d].
    """
    first: dict[int, int] = {}
    latest: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        if prompt in latest:
            first[latest[prompt]] = row
        latest[prompt] = row
    kinds: dict[tuple[int, ...], int] = {}
    kind = np.array([kinds.setdefault(label, len(kinds)) for label in labels], np.int64)
    for older, newer in _rivals_of_same_key(keys, kind):
        for old, new in zip(older.tolist(), newer.tolist(), strict=True):
            first[old] = min(first.get(old, new), new)
    return {int(numbers[old]): int(numbers[new]) for old, new in first.items()}


def _rivals_of_same_key(keys: Vector, kind: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Rows, older and newer, of keys [n, d] that count as the newer one's, and are of another kind [n].

    Points that lie near each other do so along every direction. So of all pairs only those are measured that
    are neighbours along two directions taken at random.
    """
    margins, along = _margins_and_projections(keys)
    order = np.argsort(along[:, 0], kind="stable")
    line, other, reach = along[order, 0], along[order, 1], _ROOM * margins[order]
    counts = np.searchsorted(line, line + reach, side="right") - np.arange(1, len(line) + 1)
    ends = np.cumsum(counts)
    start = 0
    while start < len(line):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PAIRS)))
        left = np.repeat(np.arange(start, stop), counts[start:stop])
        before = np.repeat(ends[start:stop] - counts[start:stop], counts[start:stop])
        right = left + 1 + np.arange(len(left)) + (ends[start - 1] if start else 0) - before
        near = np.abs(other[left] - other[right]) <= reach[left]
        one, two = order[left[near]], order[right[near]]
        one, two = np.minimum(one, two), np.maximum(one, two)
        rivals = kind[one] != kind[two]
        yield _same(keys, margins, one[rivals], two[rivals])
        start = stop


def _same(keys: Vector, margins: Floats, older: Numbers, newer: Numbers) -> tuple[Numbers, Numbers]:
    """Those pairs of rows whose keys count as the newer one's."""
    step = max(1, _CELLS // keys.shape[1])
    kept = [
        row_norms(np.subtract(keys[older[part]], keys[newer[part]], dtype=np.float64)) <= margins[newer[part]]
        for part in (slice(start, start + step) for start in range(0, len(older), step))
    ]
    same = np.concatenate([*kept, np.empty(0, np.bool_)])
    return older[same], newer[same]


def _margins_and_projections(keys: Vector) -> tuple[Floats, Floats]:
    """Tolerances [n] of keys [n, d], and how far they lie along two directions [n, 2]."""
    directions = np.random.default_rng(0).normal(size=(keys.shape[1], 2))
    directions /= np.linalg.norm(directions, axis=0)
    margins, along = np.empty(len(keys)), np.empty((len(keys), 2))
    step = max(1, _CELLS // keys.shape[1])
    for start in range(0, len(keys), step):
        part = keys[start : start + step]
        margins[start : start + step] = tolerances(part)
        along[start : start + step] = part.astype(np.float64) @ directions
    return margins, along
