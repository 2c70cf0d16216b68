"""Neurons that would speak in the wrong place: within another edit's answer, or in text that is to stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor

from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerPosition, AnswerTokens
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout

# A text, the first token of it after which something may be said wrongly, and whether what follows is right.
_Text = tuple[tuple[int, ...], int, bool]


def false_fires(
    residual: ResidualLayout,
    answer_tokens: Sequence[AnswerTokens],
    inputs: Sequence[Tensor],
    staying: Sequence[tuple[int, ...]],
) -> list[set[AnswerPosition]]:
    """Of each edit, the places whose neurons fire where something else is to be said.

    A score says of a text what it says of the edit's prompt only if the text ends in the beginning of the
    answer. Where merely the last few tokens are the same, it may be anything.

    Args:
        inputs: of each edit's neurons, see `ResidualLayout.neurons`.
        staying: texts in which none may fire.
    """
    known: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for edit, each in enumerate(answer_tokens):
        for which, place in enumerate(each.positions):
            known[place.before].append((edit, which))
    lengths = {len(before) for before in known}
    found: list[set[AnswerPosition]] = [set() for _ in answer_tokens]
    for ids, first, right in _texts(answer_tokens, staying):
        ends = [
            (at, speaker)
            for at in range(first, len(ids) - right)
            for length in lengths
            for speaker in known.get(ids[max(0, at + 1 - length) : at + 1], ())
            if not right or answer_tokens[speaker[0]].positions[speaker[1]].token != ids[at + 1]
        ]
        if not ends:
            continue
        columns = residual.columns(ids)
        for at, (edit, which) in ends:
            if columns[at] @ inputs[edit][which] > 0:
                found[edit].add(answer_tokens[edit].positions[which])
    return found


def _texts(answer_tokens: Sequence[AnswerTokens], staying: Sequence[tuple[int, ...]]) -> Iterator[_Text]:
    for each in answer_tokens:
        prompt, answer = each.edit.prompt_ids, each.edit.target_ids
        yield (*prompt, *answer), len(prompt) - 1, True
    for ids in staying:
        yield ids, 0, False
