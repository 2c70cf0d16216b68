"""The positions of an edit's answer: the token that a neuron writes, and the tokens before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from melo_cli.exporting.merging.compiling.gpt2.layout import BEFORE
from melo_cli.models.encoding import EncodedEdit


@dataclass(frozen=True)
class AnswerPosition:
    """One token of an answer.

    Attributes:
        before: ids of the last tokens before it, in order.
        after: how many tokens of the answer precede it.
        token: id of the token itself.
    """

    before: tuple[int, ...]
    after: int
    token: int


@dataclass(frozen=True)
class AnswerTokens:
    """An edit with each position of its answer, after its prompt and after its variants."""

    edit: EncodedEdit
    positions: tuple[AnswerPosition, ...]


def answer_tokens(edit: EncodedEdit, variants: Iterable[EncodedEdit]) -> AnswerTokens:
    """An edit with every context of its answer: the end of its prompt, and the ends of its variants.

    Args:
        edit: the edit's prompt and target as token ids.
        variants: the variants, each with the answer as the tokenizer writes it after them.
    """
    contexts = [(each.prompt_ids[-BEFORE - 1 :], each.target_ids) for each in (edit, *variants)]
    positions = dict.fromkeys(
        AnswerPosition((*ending, *answer[:after])[-BEFORE - 1 :], after, token)
        for ending, answer in contexts
        for after, token in enumerate(answer)
        # No more tokens than the edit's own target has, so that their share of the means is known.
        if after < len(edit.target_ids)
    )
    return AnswerTokens(edit, tuple(positions))
