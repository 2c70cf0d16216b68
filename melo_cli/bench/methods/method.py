"""The interface of a method: it makes a project's edits its own, and answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from melo_cli.bench.questions import Question
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import Route
from melo_store.records import EditView


@dataclass(frozen=True)
class Edited:
    """The project that a suite's edits were made in.

    Attributes:
        opened: the project, open.
        seconds_an_edit: what making one of its edits took.
    """

    opened: OpenProject
    seconds_an_edit: float

    @cached_property
    def live(self) -> list[EditView]:
        """The edits that answer, in order."""
        return [edit for edit in self.opened.project.edits() if edit.status == "live"]

    def routes(self, prompts: Sequence[str]) -> list[Route]:
        """The project's routes of prompts, blocks alone; those of several methods are looked up once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known_routes]
        self._known_routes.update(zip(new, self.opened.inference.routes(new), strict=True))
        return [self._known_routes[prompt] for prompt in prompts]

    @cached_property
    def _known_routes(self) -> dict[str, Route]:
        return {}

    def bytes_without_blocks(self) -> int:
        """What retrieval alone keeps: edits, keys, token vectors, and the scope model."""
        kept = [entry for entry in self.opened.project.files() if entry.role != "blocks"]
        return sum(entry.size for entry in kept)

    def stored_bytes(self) -> int:
        """What the newest snapshot keeps, blocks included."""
        return sum(entry.size for entry in self.opened.project.files())


@dataclass(frozen=True)
class Reply:
    """One method's answer to a question.

    Attributes:
        edit_id: the edit that answered, or whose text stood before the question; None where the base
            answered alone, or where there is no router to say.
    """

    text: str
    edit_id: str | None = None


class Answering(Protocol):
    """A method that is ready to answer."""

    def __call__(self, questions: Sequence[Question], base: Sequence[str], advance: Advance) -> list[Reply]:
        """The answers to questions.

        Args:
            questions: what is asked.
            base: the base's answers to them, which stand where the method leaves a question to the base.
            advance: called with the number of questions that were asked since the last call.

        Returns:
            One reply a question, in order.
        """


@dataclass(frozen=True)
class Ready:
    """A method after its edits.

    Attributes:
        reply: answers questions.
        seconds: what making the edits took.
        stored_bytes: what keeping them takes, the base model aside.
        opened: the project whose model answers.
        settings: what it was made with, nothing left to be looked up.
        weights_changed: whether the open project's weights are others than the base's now.
    """

    reply: Answering
    opened: OpenProject
    seconds: float
    stored_bytes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights_changed: bool = False


class Method(Protocol):
    """A way to change a model's answers.

    Attributes:
        name: as `--methods` names it.
        words: what it does, in one sentence.
        options: what the user may set of it, with the values in force.
        only_generating: whether a classifier cannot have it.
        answers_prose: whether it can change what the model does besides: with other weights, or with blocks.
            The rest is the base's.
    """

    name: str
    words: str
    options: Mapping[str, Any]
    only_generating: bool
    answers_prose: bool

    def ready(self, edited: Edited, reporter: Reporter) -> AbstractContextManager[Ready]:
        """Inside the `with` statement the method has the edits; afterwards the model is as before.

        Args:
            edited: the project, whose live edits are the method's, too.
            reporter: shows progress.
        """
