"""`melo route`: which adapter answers a prompt, for the server that holds the adapters."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.collector import collect_from_here
from melo_cli.commands._options import (
    AtOption,
    BaseOption,
    PickleOption,
    ProjectOption,
    TrustOption,
    require_texts,
)
from melo_cli.errors import MeloError, PromptError
from melo_cli.projects import choose_project

if TYPE_CHECKING:
    from melo_cli.exporting.prompt_router import PromptRoute, PromptRouter

_READ_AT_ONCE = 1 << 16


def route(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Prompts; without any, they are read from stdin, one a line, as text or as "
            '{"prompt": "..."}.',
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

    The base model runs as far as the key layer and no further; where
    that is its input embeddings, only these are loaded. A prompt that
    cannot be asked gets an error in its line, and makes the exit code 1.
    What its base model may do is in a project's recipe; an exported
    router is told by --trust-remote-code and --allow-pickle.
    """
    if router is not None and (project is not None or at is not None):
        raise MeloError(
            "a router and a project do not go together", where="--router", mend="leave out --project and --at"
        )
    if router is None:
        if trust_remote_code or allow_pickle:
            raise MeloError(
                "they are for an exported router",
                where="--trust-remote-code, --allow-pickle",
                mend="leave them out: a project's recipe says what its base model may do",
            )
        found = _of_project(project, at, base)
    else:
        found = _of_export(router, base, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    collect_from_here()
    failed = False
    for prompts in [texts] if texts else _lines_of_stdin():
        routes = found.route(prompts)
        failed |= any(each.error is not None for each in routes)
        sys.stdout.write("".join(f"{json.dumps(_document(each))}\n" for each in routes))
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


def _document(route: PromptRoute) -> dict[str, str | float | None]:
    if route.error is not None:
        return {"prompt": route.prompt, "route": None, "error": route.error}
    if route.fired is None:
        return {"prompt": route.prompt, "route": "base"}
    return {
        "prompt": route.prompt,
        "route": route.fired.adapter,
        "edit_id": route.fired.edit_id,
        "distance": route.fired.distance,
    }


def _lines_of_stdin() -> Iterator[Sequence[str]]:
    """What has come so far, as soon as it comes: one prompt from a server that waits, many from a file."""
    stream = sys.stdin.buffer
    assert isinstance(stream, io.BufferedIOBase)
    rest = b""
    number = 0
    while chunk := stream.read1(_READ_AT_ONCE):
        *lines, rest = (rest + chunk).split(b"\n")
        prompts = [_prompt(line, number + place) for place, line in enumerate(lines, start=1)]
        number += len(lines)
        yield [prompt for prompt in prompts if prompt]
    if rest.strip():
        yield [_prompt(rest, number + 1)]


def _prompt(line: bytes, number: int) -> str:
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise PromptError("it is not UTF-8", where=f"stdin:{number}", mend="save it as UTF-8") from error
    if not text.startswith("{"):
        return text
    try:
        row = json.loads(text)
    except ValueError:
        return text
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise PromptError("it has no prompt", where=f"stdin:{number}", mend='write {"prompt": "..."}')
    return prompt
