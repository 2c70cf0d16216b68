"""`melo query`: the routes of prompts, and the answers of base and edited model."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._input_lines import line_of_stdin
from melo_cli.commands._options import (
    AtOption,
    BaseOption,
    BlockCacheOption,
    JsonOption,
    ProjectOption,
    require_texts,
)
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import PromptError
from melo_cli.ui.answers import answers_view
from melo_cli.ui.output import make_renderer


def query(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT",
            help="Prompts; - reads them from stdin, one a line, as text or as a list of messages, "
            '[{"role": "user", "content": "..."}].',
            callback=require_texts,
        ),
    ],
    project: ProjectOption = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", metavar="N", min=1, help="Most tokens of an answer. Default: the recipe's."
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A system prompt to put before each; it changes no route."),
    ] = None,
    at: AtOption = None,
    base: BaseOption = None,
    block_cache_mb: BlockCacheOption = 256,
    as_json: JsonOption = False,
) -> None:
    """Ask the base and the edited model, and show which edit answers.

    The base model answers a prompt that is in the scope of no edit; the
    nearest edit is shown, and why it did not fire. In a conversation the
    last user turn decides.
    """
    renderer = make_renderer(json=as_json)
    prompts = _lines_of_stdin() if texts == ["-"] else texts
    chosen = choose_project(project)
    renderer.heading(f"project {chosen}")
    from melo_cli.runtime.loading import open_project
    from melo_cli.runtime.querying import query as ask

    opened = open_project(chosen.path, at=at, base=base, block_cache_mb=block_cache_mb)
    collect_from_here()
    renderer.show(answers_view(ask(opened, prompts, max_new_tokens, system), opened.project))


def _lines_of_stdin() -> list[Any]:
    prompts: list[Any] = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        prompt = line_of_stdin(line, number).strip()
        if prompt:
            prompts.append(_messages(prompt) or prompt)
    if not prompts:
        raise PromptError("it holds no prompt", where="stdin", hint="write one prompt a line")
    return prompts


def _messages(line: str) -> list[dict[str, str]] | None:
    """The messages that a line lists; None for any other text."""
    if not line.startswith("["):
        return None
    try:
        messages = json.loads(line)
    except (ValueError, RecursionError):
        return None
    listed = isinstance(messages, list) and all(
        isinstance(each, dict) and all(isinstance(each.get(name), str) for name in ("role", "content"))
        for each in messages
    )
    return messages if listed and messages else None
