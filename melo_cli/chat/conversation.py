"""A conversation with one open project: its turns, and the edits that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melo_cli.datasets import EditRequest
from melo_cli.editing import EditOutcome, edit_opened
from melo_cli.errors import ModelError, PromptError
from melo_cli.models.encoding import Message
from melo_cli.reporter import Reporter
from melo_cli.runtime.greedy import room_after
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject, follow_newest
from melo_cli.runtime.querying import asked_with, encode, speaks_against
from melo_cli.runtime.streaming import Show
from melo_cli.scope.core.rules import NO_ROUTE, Route
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

_STOPPED = "stopped"
_CHAT_TOKENS = 256
"""Tokens of a chat's longest answer where neither option nor recipe gives more: the recipe's is made for
the answers of edits, which are short."""


@dataclass(frozen=True)
class Turn:
    """What the user asked, and what came back.

    Attributes:
        against: what speaks against the nearest edit, where it did not fire under the rule `verified`.
        cut: why the answer lacks its end; None where it is whole.
    """

    prompt: str
    answer: str
    route: Route
    against: str | None
    cut: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether Ctrl-C ended the answer."""
        return self.cut == _STOPPED

    @property
    def decides(self) -> tuple[str, ...]:
        """The edits that the answer rests on: the one that holds its prompt, or those that were told."""
        held = self.route.held
        return (held.edit_id,) if held is not None else self.route.told


class Conversation:
    """Turns with the edited model, greedily answered: each as `melo query` answers the same messages.

    The project is followed: an edit that another process has made meanwhile answers from the next turn on.

    Args:
        opened: at its newest snapshot.
        command: the command line, for the history of the project.
        max_new_tokens: most tokens of an answer; None is the recipe's number, at least 256.

    Attributes:
        turns: oldest first; without a chat template none of them is a part of what is asked next.

    Raises:
        ModelError: the model writes no text.
        PromptError: there is a system prompt, and no chat template that has a place for it.
    """

    def __init__(
        self,
        opened: OpenProject,
        reporter: Reporter,
        *,
        command: str,
        system: str | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        kind = opened.routed.base.kind
        if not kind.generates:
            raise ModelError(
                f"its base model is a {kind.described} and writes no text",
                where=str(opened.project.path),
                hint="ask it with `melo query`",
            )
        self._opened = opened
        self._reporter = reporter
        self._command = command
        self._length = max_new_tokens or max(opened.recipe.generation.max_new_tokens, _CHAT_TOKENS)
        self._system: str | None = None
        self._edit_ids: list[str] = []
        self.turns: list[Turn] = []
        self.put_before(system)

    @property
    def project(self) -> Project:
        """The snapshot that gave the last answer."""
        return self._opened.project

    @property
    def remembers(self) -> bool:
        """Whether earlier turns are a part of what is asked; without a chat template they are not."""
        return self._opened.encoder.template == "chat"

    @property
    def last(self) -> Turn:
        """The last turn.

        Raises:
            PromptError: there is none yet.
        """
        if not self.turns:
            raise PromptError("nothing has been asked yet", hint="ask something first")
        return self.turns[-1]

    def put_before(self, system: str | None) -> None:
        """Have a system prompt before the conversation from the next answer on, or none.

        Raises:
            PromptError: there is no chat template that has a place for it.
        """
        if system is not None:
            self._opened.encoder.require_template()
        self._system = system

    def ask(self, prompt: str, show: Show) -> Turn:
        """Ask the next question; its route is that of its own text."""
        self._follow()
        route = self._route(prompt)
        self._make_room(prompt, route)
        turn = self._answered(self.turns, prompt, route, show)
        self.turns.append(turn)
        return turn

    def ask_again(self, show: Show) -> Turn:
        """Ask the last question once more: the new answer takes the place of the old one."""
        prompt = self.last.prompt
        turn = self._answered(self.turns[:-1], prompt, self._route(prompt), show)
        self.turns[-1] = turn
        return turn

    def ask_base(self, show: Show) -> Turn:
        """Ask the base alone the last question; the conversation stays as it is."""
        prompt = self.last.prompt
        answer, cut = self._written(self.turns[:-1], prompt, NO_ROUTE, show)
        return Turn(prompt, answer, NO_ROUTE, None, cut)

    def edit(self, target: str) -> EditOutcome:
        """Have the last question answered with `target`; an edit that did not take changes no answer.

        Raises:
            MeloError: nothing has been asked, the edit does not fit the model, or somebody else is writing.
        """
        request = EditRequest(self.last.prompt, target)
        self._follow()
        summary = edit_opened(self._opened, request, self._reporter, command=self._command)
        (outcome,) = summary.outcomes
        if outcome.status != "failed":
            self._edit_ids.append(outcome.edit_id)
        self._follow()
        return outcome

    def undo(self) -> str | None:
        """Take back the last edit of this conversation that is not taken back yet, and name it.

        Raises:
            MeloError: somebody else is writing, or the file system refused.
        """
        if not self._edit_ids:
            return None
        with open_writer(self._opened.project) as writer:
            writer.revert([self._edit_ids[-1]], versions=library_versions(), command=self._command)
        self._follow()
        return self._edit_ids.pop()

    def rests_on(self, edit_id: str) -> bool:
        """Whether the last answer was routed by that edit, or written with its fact."""
        return bool(self.turns) and edit_id in self.turns[-1].decides

    def is_answered(self, target: str) -> bool:
        """Whether the last answer is `target`."""
        return same_answer(self.last.answer, target)

    def forget(self) -> None:
        """Begin anew; system prompt and edits stay."""
        self.turns.clear()

    def messages(self, before: Sequence[Turn], prompt: str) -> list[Message]:
        """What the model is asked: the system prompt, the turns before, the prompt."""
        messages = [{"role": "system", "content": self._system}] if self._system is not None else []
        for turn in before if self.remembers else ():
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.answer})
        return [*messages, {"role": "user", "content": prompt}]

    def _route(self, prompt: str) -> Route:
        (route,) = self._opened.routes([prompt])
        return route

    def _answered(self, before: Sequence[Turn], prompt: str, route: Route, show: Show) -> Turn:
        answer, cut = self._written(before, prompt, route, show)
        return Turn(prompt, answer, route, speaks_against(self._opened, prompt, route), cut)

    def _written(
        self, before: Sequence[Turn], prompt: str, route: Route, show: Show
    ) -> tuple[str, str | None]:
        """An answer, and why it lacks its end; where Ctrl-C stops it, what has been shown is the answer."""
        block = route.fired.block if route.fired is not None else None
        ids = encode(self._opened.encoder, self._asked(before, prompt, route))
        length = min(self._length, room_after(self._opened.inference.base, len(ids)))
        pieces: list[str] = []

        def on_piece(piece: str) -> None:
            pieces.append(piece)
            show(piece)

        try:
            answer, ended = self._opened.inference.stream(ids, block, length, on_piece)
        except KeyboardInterrupt:
            return "".join(pieces), _STOPPED
        return answer, None if ended else f"cut at {length} tokens"

    def _asked(self, before: Sequence[Turn], prompt: str, route: Route) -> list[Message]:
        return asked_with(self._opened, self.messages(before, prompt), route)

    def _make_room(self, prompt: str, route: Route) -> None:
        """Forget the oldest turns where the model does not take them and a whole answer."""
        limit = self._opened.routed.base.max_length
        if limit is None or not self.remembers:
            return
        left = limit - min(self._length, limit // 2)
        before = len(self.turns)
        while self.turns and self._opened.encoder.length(self._asked(self.turns, prompt, route)) > left:
            del self.turns[0]
        gone = before - len(self.turns)
        if gone:
            turns = "turn is" if gone == 1 else f"{gone} turns are"
            self._reporter.warn(f"the oldest {turns} forgotten: the model takes {limit} tokens")

    def _follow(self) -> None:
        self._opened = follow_newest(self._opened)
