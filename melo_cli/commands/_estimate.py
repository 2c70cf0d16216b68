"""`melo edit --estimate`: what the edits would take, and nothing done."""

from __future__ import annotations

from melo_cli.commands._edit_source import EditSource
from melo_cli.errors import MeloError
from melo_cli.ui.estimate import forecast_view
from melo_cli.ui.renderer import Renderer


def show_estimate(renderer: Renderer, source: EditSource, *, single: bool, force: bool) -> None:
    """Estimate what the edits of a recipe take.

    Raises:
        MeloError: there is no recipe, or what it needs is not there.
    """
    if source.recipe is None or single:
        raise MeloError(
            "a single edit takes too little to be estimated",
            where="--estimate",
            hint="name a RECIPE or a file of edits",
        )
    from melo_cli.editing.dry_run import estimate_dataset

    renderer.show(forecast_view(estimate_dataset(source.recipe, source.project.path, renderer, force=force)))
