"""A chat from its first line to its last: what each line does, and what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melo_cli.chat.slash_commands import parse
from melo_cli.commands._input_lines import Lines
from melo_cli.errors import MeloError, PromptError

if TYPE_CHECKING:
    from melo_cli.chat.conversation import Conversation, Turn
    from melo_cli.ui.chat import ChatOutput

_PROMPT = "> "
_PROMPT_FOR_EDIT = "right answer> "
_ANSWERED_ONLY_ALONE = (
    "the edit holds where the question is asked alone; here the conversation before it leads to another "
    "answer (/new forgets it)"
)


class ChatSession:
    """Reads lines, does what they say and shows the result.

    Args:
        interactive: go on after an error and after Ctrl-C; a pipe ends then.

    Attributes:
        failed: an edit did not take.
    """

    def __init__(
        self, conversation: Conversation, lines: Lines, output: ChatOutput, *, interactive: bool
    ) -> None:
        self._conversation = conversation
        self._lines = lines
        self._output = output
        self._interactive = interactive
        self._commands = {
            "edit": self._edit,
            "why": self._why,
            "base": self._base,
            "undo": self._undo,
            "system": self._system,
            "new": self._new,
            "help": self._help,
        }
        self.failed = False

    def run(self) -> None:
        """Read and do every line.

        Raises:
            MeloError: a line cannot be done, in a pipe.
            KeyboardInterrupt: Ctrl-C at the prompt, or anywhere in a pipe.
        """
        more = True
        while more:
            try:
                more = self._run_line()
            except MeloError as error:
                if not self._interactive:
                    raise
                self._output.error(str(error))

    def _run_line(self) -> bool:
        """Read and do one line; False where it was the last."""
        self._output.ready()
        line = self._lines.next(_PROMPT)
        if line is None or not line.strip():
            return line is not None
        parsed = parse(line)
        if parsed.command == "quit":
            return False
        try:
            if parsed.command is None:
                self._show(self._conversation.ask(parsed.text, self._output.piece))
            else:
                self._commands[parsed.command](parsed.text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._output.say("stopped")
        return True

    def _edit(self, text: str) -> None:
        question = self._conversation.last.prompt
        target = text or (self._lines.next(_PROMPT_FOR_EDIT) or "").strip()
        if not target:
            raise PromptError(
                "no right answer is given, nothing has been changed",
                where="/edit",
                hint=f'write the answer to "{question}" behind it, or on the next line',
            )
        outcome = self._conversation.edit(target)
        self._output.edited(outcome, self._conversation.project)
        if outcome.status == "failed":
            self.failed = True
            return
        turn = self._conversation.ask_again(self._output.piece)
        self._show(turn)
        if not turn.stopped and not self._conversation.is_answered(target):
            self._output.say(_ANSWERED_ONLY_ALONE)

    def _why(self, _: str) -> None:
        self._output.why(self._conversation.last, self._conversation.project)

    def _base(self, _: str) -> None:
        turn = self._conversation.ask_base(self._output.piece)
        self._require_whole(turn)
        self._output.base(turn)

    def _undo(self, _: str) -> None:
        undone = self._conversation.undo()
        if undone is None:
            self._output.say("nothing to undo: no edit of this chat is left")
            return
        self._output.undone(undone, self._conversation.project)
        if self._conversation.rests_on(undone):
            self._show(self._conversation.ask_again(self._output.piece))

    def _system(self, text: str) -> None:
        self._conversation.put_before(text or None)
        self._output.say("the system prompt holds from the next answer on" if text else "no system prompt")

    def _new(self, _: str) -> None:
        self._conversation.forget()
        self._output.say("the conversation is forgotten")

    def _help(self, _: str) -> None:
        self._output.help()

    def _show(self, turn: Turn) -> None:
        self._require_whole(turn)
        self._output.turn(turn, self._conversation.project)

    def _require_whole(self, turn: Turn) -> None:
        """A pipe ends where an answer was stopped."""
        if turn.stopped and not self._interactive:
            raise KeyboardInterrupt
