"""Chooses the form of what is shown, by what `--json` says and by what stdout and stderr are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from melo_cli.ui.json_renderer import JsonRenderer
from melo_cli.ui.plain_renderer import PlainMessages, PlainRenderer
from melo_cli.ui.renderer import Messages, Renderer

if TYPE_CHECKING:
    from rich.console import Console

_FORCING_VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""With one of these set, rich may take a pipe for a terminal."""


def make_renderer(*, json: bool = False, lines: bool = False) -> Renderer:
    """The renderer of a command.

    Args:
        json: stdout is for JSON documents alone.
        lines: each of these documents takes one line.
    """
    if json:
        return JsonRenderer(make_messages(), lines=lines)
    console = _console(sys.stdout)
    if console is None:
        return PlainRenderer(make_messages())
    from melo_cli.ui.rich_renderer import RichRenderer

    return RichRenderer(make_messages(), console)


def make_messages() -> Messages:
    """What shows messages and progress on stderr."""
    console = _console(sys.stderr)
    if console is None:
        return PlainMessages()
    from melo_cli.ui.rich_renderer import RichMessages

    return RichMessages(console)


def _console(stream: TextIO) -> Console | None:
    """What draws on a terminal. A pipe gets None: it needs no rich, which takes long to load."""
    if not stream.isatty() and not any(name in os.environ for name in _FORCING_VARIABLES):
        return None
    from rich.console import Console

    console = Console(stderr=stream is sys.stderr, markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else None
