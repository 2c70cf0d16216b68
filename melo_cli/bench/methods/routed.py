"""Methods that answer what melo's router gives them, and leave all else to the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from melo_cli.bench.asking import answers, routes_of
from melo_cli.bench.methods.method import Answering, Reply
from melo_cli.bench.questions import Question
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import Candidate

FiredAnswers = Callable[[Sequence[Question], Sequence[Candidate]], list[str]]


def by_route(opened: OpenProject, fired_answers: FiredAnswers) -> Answering:
    """Answers by route.

    A question that no edit takes is answered by the same weights as in the base, and is not asked again.

    Args:
        opened: the project, or another editor that routes.
        fired_answers: answers questions that edits take, given the edit that takes each.
    """

    def reply(questions: Sequence[Question], base: Sequence[str], advance: Advance) -> list[Reply]:
        routes = routes_of(opened, questions)
        # An edit that the base had right already leads to the base.
        taken = [(row, route.fired) for row, route in enumerate(routes)]
        fired = [(row, near) for row, near in taken if near is not None and near.block is not None]
        advance(len(questions) - len(fired))
        written = fired_answers([questions[row] for row, _ in fired], [near for _, near in fired])
        advance(len(fired))
        replies = [Reply(text) for text in base]
        for (row, near), text in zip(fired, written, strict=True):
            replies[row] = Reply(text, near.edit_id)
        return replies

    return reply


def by_block(opened: OpenProject) -> FiredAnswers:
    """Answers with the block that each edit's route names."""
    return lambda questions, fired: answers(opened, questions, [near.block for near in fired])
