"""`melo inspect`: which modules of a model a recipe may name, and what the defaults are."""

from __future__ import annotations

from typing import Annotated

import typer

from melo_cli.commands._options import JsonOption, PickleOption, TrustOption
from melo_cli.ui.inspection import inspection_view
from melo_cli.ui.output import make_renderer


def inspect(
    model: Annotated[str, typer.Argument(help="A model's folder or hub id.")],
    trust_remote_code: TrustOption = False,
    allow_pickle: PickleOption = False,
    every_block: Annotated[
        bool, typer.Option("--all", help="List every block, also those that repeat.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the modules of a MODEL that a recipe can name, with shapes and defaults."""
    renderer = make_renderer(json=as_json)
    from melo_cli.errors import TrustError
    from melo_cli.models.base_model import load_base_model
    from melo_cli.recipe import ModelSection

    section = ModelSection(
        name_or_path=model, device="cpu", trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
    )
    try:
        loaded = load_base_model(section, "custom")
    except TrustError as error:
        error.name_option()
        raise
    renderer.show(inspection_view(model, loaded, fold=not every_block))
