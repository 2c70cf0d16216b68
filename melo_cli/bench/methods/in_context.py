"""In-context editing: where the router fires, the edit stands before the question.

Prompts and targets are earlier turns of the conversation, or lines before the question where there is no chat
template: two edits as demonstrations, then the one whose scope the question lies in (IKE, arXiv 2305.12740;
SERAC, arXiv 2206.06520, where the router decides).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from melo_cli.bench.asking import answers
from melo_cli.bench.methods.method import Edited, Ready
from melo_cli.bench.methods.retrieval import nearest_edits
from melo_cli.bench.methods.routed import by_route, fired
from melo_cli.bench.questions import Question
from melo_cli.reporter import Reporter
from melo_cli.scope.core.rules import Route

_DEMONSTRATIONS = 2
"""Other edits, the nearest ones, that show the form of an answer."""


class InContext:
    """The edit before the question."""

    name = "icl"
    words = "the edit's question and answer before what is asked, behind melo's router"
    options: Mapping[str, Any] = {}
    only_generating = True
    answers_prose = False

    @contextmanager
    def ready(self, edited: Edited, reporter: Reporter) -> Iterator[Ready]:
        opened = edited.opened
        pairs = {edit.edit_id: (edit.prompt, edit.target) for edit in edited.live}

        def told(questions: Sequence[Question], routes: Sequence[Route]) -> list[str]:
            found = nearest_edits(opened, questions, _DEMONSTRATIONS + 1)
            taken = [fired(route).edit_id for route in routes]
            others = [
                [each for each in some if each != own and each in pairs][:_DEMONSTRATIONS]
                for some, own in zip(found, taken, strict=True)
            ]
            # The nearest ones stand last, next to the question.
            before = [
                [pairs[each] for each in (*reversed(some), own)]
                for some, own in zip(others, taken, strict=True)
            ]
            return answers(opened, questions, [None] * len(questions), context=before)

        yield Ready(
            by_route(edited.routes, told),
            opened,
            0.0,
            edited.bytes_without_blocks(),
            {"demonstrations": _DEMONSTRATIONS},
        )
