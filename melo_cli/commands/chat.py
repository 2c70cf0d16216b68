"""`melo chat`: talk with the edited model, and correct its answers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from melo_cli.commands._chat_session import ChatSession
from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._input_lines import Lines, PipedLines, TypedLines
from melo_cli.commands._options import BaseOption, ProjectOption, require_text
from melo_cli.commands._project_choice import choose_project
from melo_cli.ui.chat import ChatOutput, TerminalChatOutput
from melo_cli.ui.output import make_renderer


def chat(
    context: typer.Context,
    project: ProjectOption = None,
    base: BaseOption = None,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A system prompt to put before the conversation; it changes no route.",
            callback=require_text,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            help="Most tokens of an answer. Default: the recipe's, at least 256.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a turn, each on a line.")
    ] = False,
) -> None:
    """Talk with the edited model; every answer says which edit gave it.

    A line that begins with a slash is a command: /edit corrects the last
    answer, /why explains it, /undo reverts the edit, /help lists all of
    them. In a pipe every line of stdin is a turn. Answers go to stdout, and
    messages about them to stderr.
    """
    renderer = make_renderer(json=as_json, lines=True)
    typed = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    chosen = choose_project(project)
    if typed:
        renderer.heading(f"project {chosen}")
    else:
        renderer.info(f"project {chosen}")
    from melo_cli.chat.conversation import Conversation
    from melo_cli.runtime.loading import open_project

    opened = open_project(chosen.path, base=base)
    collect_from_here()
    conversation = Conversation(
        opened, renderer, command=context.obj, system=system, max_new_tokens=max_new_tokens
    )
    lines: Lines = TypedLines() if typed else PipedLines()
    output = TerminalChatOutput(renderer) if typed else ChatOutput(renderer)
    output.begin(conversation)
    session = ChatSession(conversation, lines, output, interactive=typed)
    session.run()
    if session.failed and not typed:
        raise typer.Exit(1)
