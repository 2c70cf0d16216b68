"""Methods that answer what a router gives them, and leave all else to the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from melo_cli.bench.asking import answers
from melo_cli.bench.methods.method import Answering, Reply
from melo_cli.bench.questions import Question
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import Candidate, Route

FindRoutes = Callable[[Sequence[str]], list[Route]]
TakenAnswers = Callable[[Sequence[Question], Sequence[Route]], list[str]]


def by_route(find_routes: FindRoutes, taken_answers: TakenAnswers) -> Answering:
    """Answers by route.

    A question that no edit takes is answered by the same weights as in the base, and is not asked again.

    Args:
        find_routes: the routes of prompts.
        taken_answers: answers questions that edits take, given the route of each.
    """

    def reply(questions: Sequence[Question], base: Sequence[str], advance: Advance) -> list[Reply]:
        routes = find_routes([question.prompt for question in questions])
        taken = {row: edit_id for row, route in enumerate(routes) if (edit_id := _edit_of(route))}
        advance(len(questions) - len(taken))
        written = taken_answers([questions[row] for row in taken], [routes[row] for row in taken])
        advance(len(taken))
        replies = [Reply(text) for text in base]
        for (row, edit_id), text in zip(taken.items(), written, strict=True):
            replies[row] = Reply(text, edit_id)
        return replies

    return reply


def by_block(opened: OpenProject) -> TakenAnswers:
    """Answers with the block that each route names; an open request is told its facts, as a user's is."""

    def taken_answers(questions: Sequence[Question], routes: Sequence[Route]) -> list[str]:
        asked = [
            question.with_prompt(opened.told.asked(question.prompt, route))
            for question, route in zip(questions, routes, strict=True)
        ]
        return answers(opened, asked, [near.block if (near := route.fired) else None for route in routes])

    return taken_answers


def fired(route: Route) -> Candidate:
    """The edit that takes a question, of a route that has no facts to tell."""
    assert route.fired is not None
    return route.fired


def _edit_of(route: Route) -> str | None:
    """The edit whose block answers, or the first of those whose facts are told; None where the base answers.

    An edit that the base had right already leads to the base.
    """
    if route.fired is not None and route.fired.block is not None:
        return route.fired.edit_id
    return route.told[0] if route.told else None
