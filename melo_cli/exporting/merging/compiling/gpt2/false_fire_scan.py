"""Finds neurons with false fires: in another edit's answer, or in a negative."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor

from melo_cli.exporting.merging.compiling.gpt2.answer_positions import AnswerPosition, AnswerTokens
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout

# Token ids, the first position to check, and whether the next token of the text is the right one to write.
_Text = tuple[tuple[int, ...], int, bool]


def false_fires(
    residual: ResidualLayout,
    answer_tokens: Sequence[AnswerTokens],
    inputs: Sequence[Tensor],
    negatives: Sequence[tuple[int, ...]],
) -> list[set[AnswerPosition]]:
    """For each edit, the answer positions whose neurons fire where another token is to be written.

    A detector's score of a text equals its score of the edit's prompt only if the text ends in the beginning
    of the answer. If merely the last few tokens are the same, the score may be anything.

    Args:
        residual: the added columns.
        answer_tokens: the answer positions of each edit.
        inputs: input weights of each edit's neurons, see `ResidualLayout.neurons`.
        negatives: token ids of texts in which no neuron may fire.
    """
    known: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for edit, each in enumerate(answer_tokens):
        for which, position in enumerate(each.positions):
            known[position.before].append((edit, which))
    lengths = {len(before) for before in known}
    firing: list[set[AnswerPosition]] = [set() for _ in answer_tokens]
    for ids, first, right in _texts(answer_tokens, negatives):
        ends = [
            (at, neuron)
            for at in range(first, len(ids) - right)
            for length in lengths
            for neuron in known.get(ids[max(0, at + 1 - length) : at + 1], ())
            if not right or answer_tokens[neuron[0]].positions[neuron[1]].token != ids[at + 1]
        ]
        if not ends:
            continue
        columns = residual.columns(ids)
        for at, (edit, which) in ends:
            if columns[at] @ inputs[edit][which] > 0:
                firing[edit].add(answer_tokens[edit].positions[which])
    return firing


def _texts(answer_tokens: Sequence[AnswerTokens], negatives: Sequence[tuple[int, ...]]) -> Iterator[_Text]:
    for each in answer_tokens:
        prompt, answer = each.edit.prompt_ids, each.edit.target_ids
        yield (*prompt, *answer), len(prompt) - 1, True
    for ids in negatives:
        yield ids, 0, False
