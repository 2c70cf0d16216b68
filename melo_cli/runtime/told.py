"""Facts of edits that stand with an open request about their subject, a question whether something is so, a
task that wants a text written, or a statement; the base model answers it.

A block answers its edit's own question. For a text about a subject the model needs the fact in what it reads:
behind the request, in the same turn. Fewer texts take it up from before the request, from an earlier turn or
from a system message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from melo_cli.models.base_model import BaseModel
from melo_cli.scope.core.open_requests import requested_subject, subject_key
from melo_cli.scope.core.rules import Route
from melo_cli.scope.core.tasks import task_in

_MOST = 5
"""Edits that are told with one request; of more the newest."""


class Fact(Protocol):
    """What is told of an edit."""

    @property
    def prompt(self) -> str: ...

    @property
    def target(self) -> str: ...


class FactSource(Protocol):
    """The edits that may be told: those of a snapshot, or of an export."""

    def live_subjects(self) -> Mapping[str, str]:
        """The subject of every live edit that has one, by the edit's id, oldest first."""

    def edit(self, edit_id: str, /) -> Fact:
        """An edit by its id."""


class ToldEdits:
    """Finds the edits that open requests are about.

    Args:
        source: the edits.
        takes: whether the model takes a prompt whole, with room behind it.
        in_use: False leaves open requests to the base model as they are.

    Attributes:
        source, in_use: the same.
    """

    def __init__(self, source: FactSource, takes: Callable[[str], bool], *, in_use: bool) -> None:
        self.source = source
        self._takes = takes
        self.in_use = in_use

    def with_told(self, prompts: Sequence[str], routes: Sequence[Route]) -> list[Route]:
        """The routes of prompts, with the edits that are told.

        They are as many as the model has room for. A prompt that an edit's block answers is told none.
        """
        return [
            self._with_room(prompt, replace(route, told=self._about(prompt, route)))
            if self.in_use and route.held is None
            else route
            for prompt, route in zip(prompts, routes, strict=True)
        ]

    def facts(self, route: Route) -> list[str]:
        """The facts of the edits that are told: each one's prompt and target."""
        edits = [self.source.edit(edit_id) for edit_id in route.told]
        return [f"{edit.prompt.strip()} {edit.target.strip().removesuffix('.')}." for edit in edits]

    def asked(self, prompt: str, route: Route) -> str:
        """What the model is asked for a prompt: with the facts of the edits that its route tells."""
        return with_facts(prompt, self.facts(route))

    def _with_room(self, prompt: str, route: Route) -> Route:
        """The route with the newest of the edits that are told, whose facts fit behind the request."""
        for count in range(len(route.told), 0, -1):
            fewer = replace(route, told=route.told[:count])
            if self._takes(self.asked(prompt, fewer)):
                return fewer
        return replace(route, told=())

    def _about(self, prompt: str, route: Route) -> tuple[str, ...]:
        subject = requested_subject(prompt)
        if subject is not None and subject in self._edits_of:
            return tuple(self._edits_of[subject][: -_MOST - 1 : -1])
        if route.wants is None or route.nearest is None:
            return ()
        task = task_in(prompt) if route.wants == "task" else None
        return (route.nearest.edit_id,) if task is None or task.writes else ()

    @cached_property
    def _edits_of(self) -> dict[str, list[str]]:
        """The live edits of each subject, oldest first; made for the first open request."""
        edits_of: dict[str, list[str]] = {}
        for edit_id, subject in self.source.live_subjects().items():
            edits_of.setdefault(subject_key(subject), []).append(edit_id)
        return edits_of


def takes_facts(base: BaseModel) -> bool:
    """Whether facts can stand with requests: the model writes text, and is asked through a chat template."""
    return base.kind.generates and base.template == "chat"


def with_facts(request: str, facts: Sequence[str]) -> str:
    """A request with facts behind it; without facts as it is."""
    if not facts:
        return request
    if len(facts) == 1:
        return f"{request}\n\nUse this fact: {facts[0]}"
    return "\n".join((f"{request}\n\nUse these facts:", *(f"- {fact}" for fact in facts)))
