"""Options that several commands have, spelt and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._project_choice import known_names


def require_text(value: str | None) -> str | None:
    """A text given on the command line must be UTF-8 to mean anything to a model.

    Raises:
        typer.BadParameter: it holds bytes that are no UTF-8.
    """
    if value is not None:
        _check(value)
    return value


def require_texts(values: list[str] | None) -> list[str]:
    """`require_text` for something that may be given more than once."""
    for text in values or ():
        _check(text)
    return values or []


def _check(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise typer.BadParameter(f"it is not UTF-8 at character {error.start + 1}") from error


ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="PROJECT",
        help="A project's folder, or its name under .melo/. Else $MELO_PROJECT, else the last one edited.",
        autocompletion=known_names,
    ),
]
AtOption = Annotated[
    int | None,
    typer.Option("--at", metavar="N", min=0, help="The snapshot to use, if not the newest."),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="The base model, if it has moved since the project was made.",
    ),
]
BlockCacheOption = Annotated[
    int,
    typer.Option(
        "--block-cache-mb",
        metavar="MB",
        min=0,
        help="Device memory for blocks that were used lately, in MiB.",
    ),
]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]
PickleOption = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Load PyTorch's pickled weights where there are no safetensors."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
