"""What a chat shows: at a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.chat.slash_commands import COMMANDS
from melo_cli.ui.answers import candidate_document, described, route_facts
from melo_cli.ui.edits import outcome_document
from melo_cli.ui.history import counted
from melo_cli.ui.terminal import Terminal
from melo_cli.ui.text import shortened
from melo_cli.ui.word_wrap import Wrapping

if TYPE_CHECKING:
    from melo_cli.chat.conversation import Conversation, Turn
    from melo_cli.editing import EditOutcome
    from melo_cli.scope.core.rules import Route
    from melo_store.project import Project

_LINE = 80
# Characters that are shown of an edit's prompt, however long the rest of its line is.
_LEAST = 12
_HOW = "/help lists the commands, Ctrl-D ends the chat"
_EACH_ALONE = "the base model has no chat template here: each turn is asked on its own"
_NOTHING_CHANGED = "no answer has changed"


class ChatView:
    """For pipes: answers on stdout, each closed by an empty line; what is told about them on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def begin(self, conversation: Conversation) -> None:
        """The project is open."""
        if not conversation.remembers:
            self.told(_EACH_ALONE)

    def ready(self) -> None:
        """The next line is waited for."""

    def piece(self, text: str) -> None:
        """Part of an answer, as soon as the model has written it: a pipe waits for the whole."""

    def turn(self, turn: Turn, project: Project) -> None:
        """An answer is complete."""
        self._answer(turn.answer, _mark(turn, project))

    def base(self, turn: Turn) -> None:
        """The base's answer is complete."""
        self._answer(turn.answer, _marked("base model", turn))

    def why(self, turn: Turn, project: Project) -> None:
        """How an answer was routed."""
        self._fields([("prompt", turn.prompt), *route_facts(turn.route, turn.against, project)])

    def edited(self, outcome: EditOutcome, project: Project) -> None:
        """What became of an edit."""
        tell = self._terminal.warn if outcome.status == "failed" else self.told
        tell(_edited(outcome, project))

    def undone(self, edit_id: str, project: Project) -> None:
        """An edit is taken back."""
        self.told(f"{edit_id} taken back; snapshot {project.snapshot}")

    def told(self, message: str) -> None:
        """Something was done, or could not be, that has no result to show."""
        self._terminal.info(message)

    def help(self) -> None:
        """The slash commands."""
        self._fields([(command.usage, command.help) for command in COMMANDS.values()])

    def _answer(self, answer: str, mark: str) -> None:
        self._terminal.part(f"{answer}\n\n")
        self._terminal.info(mark)

    def _fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._terminal.fields(pairs)
        self._terminal.part("\n")


class TerminalView(ChatView):
    """For people: answers as they come, broken between words, each with a dim line that says who gave it."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._written = self._wrapping()

    def begin(self, conversation: Conversation) -> None:
        live = counted(conversation.project.edit_counts["live"], "live edit")
        self.told(f"{live}; {_HOW}")
        super().begin(conversation)

    def ready(self) -> None:
        self._terminal.part("\n")

    def piece(self, text: str) -> None:
        self._written.add(text)

    def told(self, message: str) -> None:
        self._terminal.note(message)

    def _answer(self, answer: str, mark: str) -> None:
        """The answer stands there already."""
        self._written.end()
        self._written = self._wrapping()
        self.told(mark)

    def _fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._terminal.fields(pairs)

    def _wrapping(self) -> Wrapping:
        return Wrapping(shutil.get_terminal_size().columns, self._terminal.part)


class JsonView(ChatView):
    """For programs: one JSON document a line on stdout."""

    def turn(self, turn: Turn, project: Project) -> None:
        self._terminal.record(_turn_document(turn, project))

    def base(self, turn: Turn) -> None:
        self._terminal.record({"prompt": turn.prompt, "base": turn.answer, "cut": turn.cut})

    def why(self, turn: Turn, project: Project) -> None:
        self._terminal.record(_turn_document(turn, project))

    def edited(self, outcome: EditOutcome, project: Project) -> None:
        super().edited(outcome, project)
        self._terminal.record({"edit": outcome_document(outcome), "snapshot": project.snapshot})

    def undone(self, edit_id: str, project: Project) -> None:
        super().undone(edit_id, project)
        self._terminal.record({"undone": edit_id, "snapshot": project.snapshot})

    def help(self) -> None:
        self._terminal.record({"commands": {command.usage: command.help for command in COMMANDS.values()}})


def _mark(turn: Turn, project: Project) -> str:
    """Who gave an answer, in one line of 80 columns: of a long prompt the beginning."""
    whole = _marked(_giver(turn.route, project), turn)
    over = len(whole) - _LINE
    if turn.route.held is None or over <= 0:
        return whole
    shown = len(shortened(project.edit(turn.route.held.edit_id).prompt))
    return _marked(_giver(turn.route, project, max(shown - over, _LEAST)), turn)


def _marked(giver: str, turn: Turn) -> str:
    return f"{giver}; {turn.cut}" if turn.cut is not None else giver


def _giver(route: Route, project: Project, length: int | None = None) -> str:
    if route.held is None:
        return "base model"
    told = described(route.held, project, length)
    return told if route.fired is not None else f"base model, right already: {told}"


def _edited(outcome: EditOutcome, project: Project) -> str:
    where = f"snapshot {project.snapshot}"
    if outcome.status == "failed":
        answer, target = shortened(outcome.answer), shortened(outcome.target)
        return f'the edit did not take: the answer is "{answer}", not "{target}"; {_NOTHING_CHANGED}'
    if outcome.status == "already_right":
        return f"{outcome.edit_id} recorded as right already: no block is needed; {where}"
    older = project.edit(outcome.edit_id).record.supersedes
    replaced = f", in place of {', '.join(older)}" if older else ""
    return f"{outcome.edit_id} made{replaced}; {where}"


def _turn_document(turn: Turn, project: Project) -> dict[str, Any]:
    return {
        "prompt": turn.prompt,
        "answer": turn.answer,
        "route": candidate_document(turn.route.fired, project),
        "nearest": candidate_document(turn.route.nearest, project),
        "against": turn.against,
        "cut": turn.cut,
    }
