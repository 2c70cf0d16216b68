"""What a chat shows: at a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.chat.slash_commands import COMMANDS
from melo_cli.ui.answers import candidate_document, described, named, route_facts
from melo_cli.ui.edits import contradicted, outcome_document
from melo_cli.ui.elements import Element, Fields, Message, Note, Passage, View
from melo_cli.ui.history import counted
from melo_cli.ui.renderer import Renderer
from melo_cli.ui.text import shortened
from melo_cli.ui.word_wrap import Wrapping

if TYPE_CHECKING:
    from melo_cli.chat.conversation import Conversation, Turn
    from melo_cli.editing import EditOutcome
    from melo_cli.scope.core.rules import Route
    from melo_store.project import Project

_LINE_WIDTH = 80
_LEAST_OF_A_PROMPT = 12
"""Characters that are shown of an edit's prompt, however long the rest of its line is."""
_HOW = "/help lists the commands, Ctrl-D ends the chat"
_EACH_ALONE = "the base model has no chat template here: each turn is asked on its own"
_NOTHING_CHANGED = "no answer has changed"


class ChatOutput:
    """For pipes and programs: each answer as a whole, and what is said about it on stderr."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def begin(self, conversation: Conversation) -> None:
        """The project is open."""
        if not conversation.remembers:
            self.say(_EACH_ALONE)

    def ready(self) -> None:
        """The next line is waited for."""

    def piece(self, text: str) -> None:
        """Part of an answer, as soon as the model has written it: a pipe waits for the whole."""

    def turn(self, turn: Turn, project: Project) -> None:
        """An answer is complete."""
        self._show(self._answer(turn.answer, _mark(turn, project)), _turn_document(turn, project))

    def base(self, turn: Turn) -> None:
        """The base model's answer is complete."""
        document = {"prompt": turn.prompt, "base": turn.answer, "cut": turn.cut}
        self._show(self._answer(turn.answer, _marked("base model", turn)), document)

    def why(self, turn: Turn, project: Project) -> None:
        """How an answer was routed."""
        pairs = [("prompt", turn.prompt), *route_facts(turn.route, turn.against, project)]
        self._show(self._fields(pairs), _turn_document(turn, project))

    def edited(self, outcome: EditOutcome, project: Project) -> None:
        """What became of an edit."""
        say = self._renderer.warn if outcome.status == "failed" else self.say
        say(_edited(outcome, project))
        self._show([], {"edit": outcome_document(outcome), "snapshot": project.snapshot})

    def undone(self, edit_id: str, project: Project) -> None:
        """An edit is taken back."""
        self.say(f"{edit_id} taken back; snapshot {project.snapshot}")
        self._show([], {"undone": edit_id, "snapshot": project.snapshot})

    def say(self, message: str) -> None:
        """Something was done, or could not be, that has no result to show."""
        self._renderer.info(message)

    def error(self, message: str) -> None:
        """A line could not be done."""
        self._renderer.error(message)

    def help(self) -> None:
        """The slash commands."""
        pairs = [(command.usage, command.help) for command in COMMANDS.values()]
        self._show(self._fields(pairs), {"commands": dict(pairs)})

    def _answer(self, answer: str, mark: str) -> list[Element]:
        return [Passage(f"{answer}\n\n"), Message(mark)]

    def _fields(self, pairs: Sequence[tuple[str, str]]) -> list[Element]:
        return [Fields(pairs), Passage("\n")]

    def _show(self, elements: Sequence[Element], document: Any = None) -> None:
        self._renderer.show(View(elements, document))


class TerminalChatOutput(ChatOutput):
    """For people: answers as they come, broken between words, each with a dim line that says who gave it."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__(renderer)
        self._wrapping = self._new_wrapping()

    def begin(self, conversation: Conversation) -> None:
        live = counted(conversation.project.edit_counts["live"], "live edit")
        self.say(f"{live}; {_HOW}")
        super().begin(conversation)

    def ready(self) -> None:
        self._write("\n")

    def piece(self, text: str) -> None:
        self._wrapping.add(text)

    def say(self, message: str) -> None:
        self._show([Note(message)])

    def _answer(self, answer: str, mark: str) -> list[Element]:
        """The answer stands there already."""
        self._wrapping.end()
        self._wrapping = self._new_wrapping()
        return [Note(mark)]

    def _fields(self, pairs: Sequence[tuple[str, str]]) -> list[Element]:
        return [Fields(pairs)]

    def _new_wrapping(self) -> Wrapping:
        return Wrapping(shutil.get_terminal_size().columns, self._write)

    def _write(self, text: str) -> None:
        self._show([Passage(text)])


def _mark(turn: Turn, project: Project) -> str:
    """Who gave an answer, in one line of 80 columns: of a long prompt the beginning."""
    whole = _marked(_giver(turn.route, project), turn)
    over = len(whole) - _LINE_WIDTH
    decides = turn.decides
    if not decides or over <= 0:
        return whole
    shown = len(shortened(project.edit(decides[0]).prompt))
    return _marked(_giver(turn.route, project, max(shown - over, _LEAST_OF_A_PROMPT)), turn)


def _marked(giver: str, turn: Turn) -> str:
    return f"{giver}; {turn.cut}" if turn.cut is not None else giver


def _giver(route: Route, project: Project, length: int | None = None) -> str:
    if route.told:
        others = "" if len(route.told) == 1 else f" and {len(route.told) - 1} more"
        return f"base model, told {named(route.told[0], project, length)}{others}"
    if route.held is None:
        return "base model"
    edit = described(route.held, project, length)
    return edit if route.fired is not None else f"base model, right already: {edit}"


def _edited(outcome: EditOutcome, project: Project) -> str:
    where = f"snapshot {project.snapshot}"
    if outcome.status == "failed":
        answer, target = shortened(outcome.answer), shortened(outcome.target)
        return f'the edit did not take: the answer is "{answer}", not "{target}"; {_NOTHING_CHANGED}'
    if outcome.status == "already_right":
        return f"{outcome.edit_id} recorded as right already: no block is needed; {where}"
    older = project.edit(outcome.edit_id).record.supersedes
    replaced = f", in place of {', '.join(older)}" if older else ""
    other = f"; it contradicts {contradicted(outcome.contradicts)}" if outcome.contradicts else ""
    return f"{outcome.edit_id} made{replaced}; {where}{other}"


def _turn_document(turn: Turn, project: Project) -> dict[str, Any]:
    return {
        "prompt": turn.prompt,
        "answer": turn.answer,
        "route": candidate_document(turn.route.fired, project),
        "nearest": candidate_document(turn.route.nearest, project),
        "told": list(turn.route.told),
        "against": turn.against,
        "cut": turn.cut,
    }
