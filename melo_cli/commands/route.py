"""`melo route`: which adapter answers a prompt, for the server that holds the adapters."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._input_lines import line_of_stdin
from melo_cli.commands._options import (
    AtOption,
    BaseOption,
    PickleOption,
    ProjectOption,
    TrustOption,
    require_texts,
)
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import MeloError, PromptError
from melo_cli.scope.core.turns import last_user_text

if TYPE_CHECKING:
    from melo_cli.exporting.prompt_router import PromptRoute, PromptRouter

_READ_AT_ONCE = 1 << 16


def route(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT",
            help='Prompts; without any, they are read from stdin, one a line: as text, as {"prompt": "..."}, '
            'or as a list of messages, [{"role": "user", "content": "..."}].',
            callback=require_texts,
        ),
    ] = None,
    project: ProjectOption = None,
    router: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A folder of `melo export --format peft`, in a project's place."),
    ] = None,
    at: AtOption = None,
    base: BaseOption = None,
    trust_remote_code: TrustOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Say which adapter answers each prompt, or base: one JSON object a line.

    Of a conversation the last user turn is routed. The base model runs as
    far as the key layer and no further; where that is its input
    embeddings, only these are loaded, and with a sentence encoder nothing
    of it. Every line of stdin gets a line, one that cannot be routed an
    error, which makes the exit code 1.
    What its base model may do is in a project's recipe; an exported
    router is told by --trust-remote-code and --allow-pickle.
    """
    if router is not None and (project is not None or at is not None):
        raise MeloError(
            "a router and a project do not go together", where="--router", hint="leave out --project and --at"
        )
    if router is None:
        if trust_remote_code or allow_pickle:
            raise MeloError(
                "they are for an exported router",
                where="--trust-remote-code, --allow-pickle",
                hint="leave them out: a project's recipe says what its base model may do",
            )
        found = _of_project(project, at, base)
    else:
        found = _of_export(router, base, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    collect_from_here()
    failed = False
    for lines in [texts] if texts else _lines_of_stdin():
        for document in _documents(found, lines):
            failed |= "error" in document
            sys.stdout.write(f"{json.dumps(document)}\n")
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


def _of_project(project: str | None, at: int | None, base: str | None) -> PromptRouter:
    chosen = choose_project(project)
    from melo_cli.exporting.prompt_router import router_of_project

    return router_of_project(chosen.path, at=at, base=base)


def _of_export(folder: Path, base: str | None, **trust: bool) -> PromptRouter:
    from melo_cli.errors import TrustError
    from melo_cli.exporting.prompt_router import router_of_export

    try:
        return router_of_export(folder, base=base, **trust)
    except TrustError as error:
        error.name_option()
        raise


def _documents(router: PromptRouter, asked: Sequence[str | PromptError]) -> list[dict[str, Any]]:
    """What is told of prompts, and of lines that hold none."""
    routes = iter(router.route([each for each in asked if isinstance(each, str)]))
    return [_document(next(routes)) if isinstance(each, str) else _failure(None, str(each)) for each in asked]


def _document(found: PromptRoute) -> dict[str, Any]:
    if found.error is not None:
        return _failure(found.prompt, found.error)
    fired, nearest = found.route.fired, found.route.nearest
    probability = nearest.probability if nearest is not None else None
    if fired is None:
        return {"prompt": found.prompt, "route": "base", "probability": probability}
    return {
        "prompt": found.prompt,
        "route": fired.block,
        "edit_id": fired.edit_id,
        "probability": probability,
        "distance": fired.distance,
    }


def _failure(prompt: str | None, error: str) -> dict[str, Any]:
    return {"prompt": prompt, "route": None, "error": error}


def _lines_of_stdin() -> Iterator[Sequence[str | PromptError]]:
    """What has come so far, as soon as it comes: one prompt from a server that waits, many from a file."""
    stream = sys.stdin.buffer
    assert isinstance(stream, io.BufferedIOBase)
    rest = b""
    number = 0
    while chunk := stream.read1(_READ_AT_ONCE):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [_prompt(line, number + place) for place, line in enumerate(lines, start=1)]
        number += len(lines)
    if rest:
        yield [_prompt(rest, number + 1)]


def _prompt(line: bytes, number: int) -> str | PromptError:
    """What a line asks, or what is wrong with it: a server that writes another line goes on."""
    try:
        text = line_of_stdin(line, number).strip()
    except PromptError as error:
        return error
    try:
        told = json.loads(text) if text.startswith(("{", "[")) else text
    except (ValueError, RecursionError):
        return text
    asked = last_user_text(told) if isinstance(told, list) else told
    if isinstance(asked, dict):
        asked = asked.get("prompt")
    if isinstance(asked, str) and _is_text(asked):
        return asked
    return PromptError(
        "it has no prompt", where=f"stdin:{number}", hint='write {"prompt": "..."} or a list of messages'
    )


def _is_text(found: str) -> bool:
    """JSON may hold half a surrogate pair, which no tokenizer reads."""
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
