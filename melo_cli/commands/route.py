"""`melo route`: which adapter answers a prompt, for the server that has the adapters."""

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
        typer.Option(metavar="FOLDER", help="A folder of exported adapters, instead of a project."),
    ] = None,
    at: AtOption = None,
    base: BaseOption = None,
    trust_remote_code: TrustOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Say which adapter answers each prompt, or base: one JSON object a line.

    In a conversation the last user turn is routed. The base model runs up
    to the key layer. Where that is its input embeddings, only these are
    loaded; with a sentence encoder nothing of the base model is. Every line
    of stdin gets a line of output. A line that cannot be routed gets an
    error, and the exit code is 1.

    A project's recipe says whether its base model may run code of its own
    or have pickled weights. For an exported router, --trust-remote-code and
    --allow-pickle say so.
    """
    if router is not None and (project is not None or at is not None):
        raise MeloError(
            "a router and a project do not go together", where="--router", hint="leave out --project and --at"
        )
    if router is None:
        if trust_remote_code or allow_pickle:
            raise MeloError(
                "they are options of an exported router",
                where="--trust-remote-code, --allow-pickle",
                hint="leave them out: a project's recipe says what its base model may do",
            )
        opened = _of_project(project, at, base)
    else:
        opened = _of_export(router, base, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    collect_from_here()
    failed = False
    for lines in [texts] if texts else _lines_of_stdin():
        for document in _documents(opened, lines):
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


def _documents(router: PromptRouter, prompts: Sequence[str | PromptError]) -> list[dict[str, Any]]:
    """One document for each prompt, and for each line that has none."""
    routes = iter(router.route([each for each in prompts if isinstance(each, str)]))
    return [
        _document(next(routes)) if isinstance(each, str) else _failure(None, str(each)) for each in prompts
    ]


def _document(answer: PromptRoute) -> dict[str, Any]:
    if answer.error is not None:
        return _failure(answer.prompt, answer.error)
    fired, nearest = answer.route.fired, answer.route.nearest
    probability = nearest.probability if nearest is not None else None
    if fired is None:
        base = {"prompt": answer.prompt, "route": "base", "probability": probability}
        return base | ({"told": list(answer.route.told), "ask": answer.asked} if answer.route.told else {})
    return {
        "prompt": answer.prompt,
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
        yield [_prompt(line, number + offset) for offset, line in enumerate(lines, start=1)]
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
        value = json.loads(text) if text.startswith(("{", "[")) else text
    except (ValueError, RecursionError):
        return text
    prompt = last_user_text(value) if isinstance(value, list) else value
    if isinstance(prompt, dict):
        prompt = prompt.get("prompt")
    if isinstance(prompt, str) and _is_text(prompt):
        return prompt
    return PromptError(
        "it has no prompt", where=f"stdin:{number}", hint='write {"prompt": "..."} or a list of messages'
    )


def _is_text(value: str) -> bool:
    """JSON may hold half a surrogate pair, which no tokenizer reads."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
