"""Where in an answer a neuron speaks, and what it must find before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from melo_cli.exporting.merging.compiling.gpt2.layout import BEFORE
from melo_cli.models.encoding import EncodedEdit


@dataclass(frozen=True)
class AnswerPosition:
    """One token of an answer.

    Attributes:
        before: the last tokens before it, the present one at the end.
        after: how many tokens of the answer are among all that stand before it.
        token: what is said.
    """

    before: tuple[int, ...]
    after: int
    token: int


@dataclass(frozen=True)
class AnswerTokens:
    """An edit and each place in its answer, whatever wording stands before it."""

    edit: EncodedEdit
    positions: tuple[AnswerPosition, ...]


def answer_tokens(edit: EncodedEdit, wordings: Iterable[EncodedEdit]) -> AnswerTokens:
    """An edit with all that may stand before its answer: the end of its prompt, and of other wordings.

    Args:
        wordings: with the answer as it is written after each.
    """
    told = [(each.prompt_ids[-BEFORE - 1 :], each.target_ids) for each in (edit, *wordings)]
    positions = dict.fromkeys(
        AnswerPosition((*ending, *answer[:after])[-BEFORE - 1 :], after, token)
        for ending, answer in told
        for after, token in enumerate(answer)
        # The same tokens in number, so that what they add to the means is known.
        if after < len(edit.target_ids)
    )
    return AnswerTokens(edit, tuple(positions))
