"""Routes by the router of a `peft` export, whose adapters another server answers with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melo_cli.exporting.adapter_folder import ADAPTERS
from melo_cli.exporting.adapters import read_adapter
from melo_cli.exporting.prompt_router import PromptRouter
from melo_cli.scope.core.rules import Route
from melo_cli.scope.explanation import speaks_against
from melo_cli.serving.engines.engine import Routed
from melo_cli.serving.routing import Explained
from melo_store.project import Project
from melo_store.records import Block


class ExportedRoutes:
    """Routes of an export; it does not change while it is served.

    Args:
        folder: the export.
        record: what `melo export` wrote of it.
        router: its router.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], router: PromptRouter) -> None:
        self._adapters = folder / ADAPTERS
        self._router = router
        self._source = {name: record[name] for name in ("project", "snapshot", "base")}
        self._blocks: dict[str, Block] = {}

    @property
    def project(self) -> Project | None:
        return None

    @property
    def source(self) -> Mapping[str, str | int]:
        return self._source

    def follow(self) -> None:
        pass

    def last_turn(self, text: str) -> str:
        return self._router.last_turn(text)

    def routed(self, texts: Sequence[str]) -> list[Routed]:
        told = self._router.told
        return [
            Routed(route, self._block(route), tuple(told.facts(route)))
            for route in self._router.routes(texts)
        ]

    def explained(self, text: str) -> Explained:
        (routed,) = self.routed([text])
        route = routed.route
        if route.nearest is None:
            return Explained(routed, None, None)
        prompt = self._router.told.source.edit(route.nearest.edit_id).prompt
        why = speaks_against(self._router.router.rule, route, text, prompt, None)
        return Explained(routed, prompt, why)

    def copy_adapter(self, block: Block, folder: Path) -> None:
        """Copy a block's adapter: the export may be replaced while a server still names it."""
        shutil.copytree(self._adapters / block.block_id, folder)

    def _block(self, route: Route) -> Block | None:
        block_id = route.fired.block if route.fired is not None else None
        if block_id is None:
            return None
        if block_id not in self._blocks:
            self._blocks[block_id] = read_adapter(self._adapters / block_id)
        return self._blocks[block_id]
