"""Neurons that would speak in the wrong place: within another edit's answer, or in text that is to stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor

from melo_cli.exporting.merging.compiling.gpt2.answer_positions import Answered, Place
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import Stream

# A text, the first token of it after which something may be said wrongly, and whether what follows is right.
_Text = tuple[tuple[int, ...], int, bool]


def out_of_place(
    stream: Stream,
    answered: Sequence[Answered],
    inputs: Sequence[Tensor],
    staying: Sequence[tuple[int, ...]],
) -> list[set[Place]]:
    """Of each edit, the places whose neurons fire where something else is to be said.

    A score says of a text what it says of the edit's prompt only if the text ends in the beginning of the
    answer. Where merely the last few tokens are the same, it may be anything.

    Args:
        inputs: of each edit's neurons, see `Stream.neurons`.
        staying: texts in which none may fire.
    """
    known: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for edit, each in enumerate(answered):
        for which, place in enumerate(each.places):
            known[place.before].append((edit, which))
    lengths = {len(before) for before in known}
    found: list[set[Place]] = [set() for _ in answered]
    for ids, first, right in _texts(answered, staying):
        ends = [
            (at, speaker)
            for at in range(first, len(ids) - right)
            for length in lengths
            for speaker in known.get(ids[max(0, at + 1 - length) : at + 1], ())
            if not right or answered[speaker[0]].places[speaker[1]].token != ids[at + 1]
        ]
        if not ends:
            continue
        columns = stream.columns(ids)
        for at, (edit, which) in ends:
            if columns[at] @ inputs[edit][which] > 0:
                found[edit].add(answered[edit].places[which])
    return found


def _texts(answered: Sequence[Answered], staying: Sequence[tuple[int, ...]]) -> Iterator[_Text]:
    for each in answered:
        prompt, answer = each.edit.prompt_ids, each.edit.target_ids
        yield (*prompt, *answer), len(prompt) - 1, True
    for ids in staying:
        yield ids, 0, False
