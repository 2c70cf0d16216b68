"""Asks the model of an open project the questions of a suite."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.bench.questions import KINDS, Question
from melo_cli.errors import PromptError
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import Message
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject

_FEWEST_TOKENS = 24
"""Room for an answer in a sentence: what a model says in more words than the truth has is seen, too."""
_SPARE_TOKENS = 4
"""Room for an answer to go on past a long truth, which makes it another one."""


def answers(
    opened: OpenProject,
    questions: Sequence[Question],
    blocks: Sequence[str | None],
    advance: Advance | None = None,
    context: Sequence[Sequence[tuple[str, str]]] | None = None,
) -> list[str]:
    """Greedy answers.

    Args:
        opened: the project.
        questions: what is asked.
        blocks: the block that answers each question, None for the weights as they are.
        advance: called with the number of questions that were asked since the last call.
        context: questions and answers to put before each question.

    Returns:
        One answer a question, in order.
    """
    before = context or [()] * len(questions)
    return opened.inference.answers(
        [_encoded(opened, question, pairs) for question, pairs in zip(questions, before, strict=True)],
        blocks,
        [_limit(opened, question) for question in questions],
        advance,
    )


def fits(opened: OpenProject, question: Question) -> bool:
    """Whether the model takes a question, with the turns that belong before it and an answer behind it."""
    limit = opened.routed.base.max_length
    try:
        length = len(_tokens(opened, question, ()))
    except PromptError:
        return False
    together = opened.routed.base.kind is ModelKind.CAUSAL
    return limit is None or not together or length + _limit(opened, question) <= limit


def _encoded(opened: OpenProject, question: Question, context: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """A question's tokens, with as many of the pairs before it, the last ones, as the model takes."""
    for dropped in range(len(context)):
        try:
            return _tokens(opened, question, context[dropped:])
        except PromptError:
            continue
    return _tokens(opened, question, ())


def _tokens(opened: OpenProject, question: Question, context: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """What stands before a question is earlier turns, or lines where there is no chat template."""
    encoder = opened.encoder
    if encoder.template != "chat":
        lines = [f"{prompt} {answer}" for prompt, answer in context]
        return encoder.prompt("\n".join([*lines, question.prompt]))
    turns = [turn for prompt, answer in context for turn in _turns(prompt, answer)]
    messages = [*turns, *question.before, {"role": "user", "content": question.prompt}]
    return encoder.conversation(messages) if len(messages) > 1 else encoder.prompt(question.prompt)


def _turns(prompt: str, answer: str) -> tuple[Message, Message]:
    return {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}


def _limit(opened: OpenProject, question: Question) -> int:
    tokens = KINDS[question.kind].tokens
    if tokens is not None:
        return tokens
    longest = max((len(opened.encoder.tokenizer(text).input_ids) for text in question.truths), default=0)
    return max(_FEWEST_TOKENS, longest + _SPARE_TOKENS)
