"""The one interface through which melo shows anything: results on stdout, messages and progress on stderr."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from melo_cli.errors import MeloError
from melo_cli.reporter import Progress, Reporter
from melo_cli.ui.elements import Message, View


class Messages(Reporter, Protocol):
    """Messages, questions and progress, on stderr."""

    def error(self, message: str) -> None:
        """Show the one line of an error."""

    def confirm(self, question: str, *, where: str, hint: str) -> None:
        """Ask before something that cannot be undone.

        Args:
            where: the command that asks.
            hint: how to say yes on the command line.

        Raises:
            MeloError: the answer is no, or nobody can be asked.
        """


class Renderer(ABC):
    """Shows results in one form. It is also the `Reporter` of the work.

    Args:
        messages: shows what goes to stderr, which may take another form than stdout.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    @abstractmethod
    def heading(self, text: str) -> None:
        """Show the heading of the results that follow."""

    @abstractmethod
    def show(self, view: View) -> None:
        """Show one result."""

    def info(self, message: str) -> None:
        """Report something that went as it should."""
        self._messages.info(message)

    def warn(self, message: str) -> None:
        """Report something that the user may want to act on."""
        self._messages.warn(message)

    def error(self, message: str) -> None:
        """Show the one line of an error."""
        self._messages.error(message)

    def confirm(self, question: str, *, where: str, hint: str) -> None:
        """Ask before something that cannot be undone, as `Messages.confirm`."""
        self._messages.confirm(question, where=where, hint=hint)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """Open a job, as `Reporter.progress`."""
        with self._messages.progress(label, total, unit) as progress:
            yield progress

    def _report(self, message: Message) -> None:
        (self.warn if message.warning else self.info)(message.text)


def no_terminal_to_ask_at(where: str, hint: str) -> MeloError:
    """The error of a command that must ask for confirmation without a terminal."""
    return MeloError("it asks for confirmation, but there is no terminal", where=where, hint=hint)
