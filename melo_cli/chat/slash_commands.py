"""What a typed line means: a turn of the conversation, or a slash command."""

from __future__ import annotations

from dataclasses import dataclass

from melo_cli.errors import PromptError
from melo_cli.suggest import did_you_mean


@dataclass(frozen=True)
class Slash:
    """A command beside the conversation.

    Attributes:
        usage: its name with what may stand behind it.
    """

    usage: str
    help: str

    @property
    def takes_text(self) -> bool:
        """Whether anything may stand behind its name."""
        return " " in self.usage


COMMANDS = {
    "edit": Slash("/edit [TEXT]", "the last answer is wrong: TEXT, or the next line, is right"),
    "why": Slash("/why", "which edit gave the last answer, or why the nearest did not"),
    "base": Slash("/base", "what the base model alone answers to the last question"),
    "undo": Slash("/undo", "take back the last edit of this chat, then the one before it"),
    "system": Slash("/system [TEXT]", "put a system prompt before the conversation; none without TEXT"),
    "new": Slash("/new", "forget the conversation; the system prompt stays"),
    "help": Slash("/help", "this list; a message that begins with / is written with //"),
    "quit": Slash("/quit", "end the chat, as Ctrl-D does"),
}
"""By name, in the order of `/help`."""


@dataclass(frozen=True)
class Line:
    """What a line means.

    Attributes:
        command: a name of `COMMANDS`; None for a turn of the conversation.
        text: the turn, or what stands behind the command.
    """

    command: str | None
    text: str


def parse(line: str) -> Line:
    """What a line means; `//` at its beginning stands for a slash.

    Raises:
        PromptError: there is no such command, or it takes no text.
    """
    line = line.strip()
    if line.startswith("//") or not line.startswith("/"):
        return Line(None, line.removeprefix("/"))
    head, *rest = line.split(None, 1)
    name = head.removeprefix("/")
    known = COMMANDS.get(name)
    if known is None:
        listed = f"the commands are {', '.join(f'/{each}' for each in COMMANDS)}"
        nearest = did_you_mean(f"/{name}", [f"/{each}" for each in COMMANDS])
        raise PromptError(
            "there is no such command",
            where=f"/{name}",
            hint=f"{nearest} {listed}" if nearest else listed,
        )
    if rest and not known.takes_text:
        raise PromptError(
            "it takes no text", where=f"/{name}", hint=f"write /{name} alone, or //{name} for a message"
        )
    return Line(name, rest[0] if rest else "")
