"""melo itself: the route names the block that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from melo_cli.bench.methods.method import Edited, Ready
from melo_cli.bench.methods.routed import by_block, by_route
from melo_cli.reporter import Reporter
from melo_cli.scope.core.rules import Route


class Melo:
    """Routed blocks."""

    name = "melo"
    words = "a trained block an edit, behind melo's router"
    options: Mapping[str, Any] = {}
    only_generating = False
    answers_prose = True

    @contextmanager
    def ready(self, edited: Edited, reporter: Reporter) -> Iterator[Ready]:
        opened = edited.opened
        lora, training = opened.recipe.lora, opened.recipe.training

        def routes(prompts: Sequence[str]) -> list[Route]:
            return opened.told.with_told(prompts, edited.routes(prompts))

        yield Ready(
            by_route(routes, by_block(opened)),
            opened,
            edited.seconds_an_edit * len(edited.live),
            edited.stored_bytes(),
            {"rank": lora.rank, "modules": len(lora.target_modules), "batch_size": training.batch_size},
        )
