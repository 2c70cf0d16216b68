"""A routed model over a pico base whose routes are laid down by the test, without a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melo_cli.calibration import calibrate
from melo_cli.models.base_model import load_base_model
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, assemble, resolve_recipe
from melo_store.records import Block, KeyMap, LoraSlice, Neighbour

TASKS = {"pico_t5": "zsre", "pico_gpt2": "hallucination", "pico_llama": "custom", "pico_bert": "scotus"}


@dataclass
class LaidRoutes:
    """Neurons that a test lays down: each alone in a cluster of `radius`, leading to a block of its name."""

    radius: float = 0.01
    laid: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    words: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    key_map: KeyMap | None = None

    def nearest(self, keys: NDArray[np.float32], k: int) -> list[list[Neighbour]]:
        return [self._near(key)[:k] for key in keys]

    def tokens(self, edit_ids: Iterable[str]) -> list[NDArray[np.float16] | None]:
        return [self.words.get(edit_id.removeprefix("edit-")) for edit_id in edit_ids]

    def keys(self, edit_ids: Iterable[str]) -> NDArray[np.float32]:
        return np.stack([self.laid[edit_id.removeprefix("edit-")] for edit_id in edit_ids])

    def prompts(self, edit_ids: Iterable[str]) -> list[str]:
        return [self.texts[edit_id.removeprefix("edit-")] for edit_id in edit_ids]

    def block(self, block_id: str) -> Block:
        return self.blocks[block_id]

    def _near(self, key: NDArray[np.float32]) -> list[Neighbour]:
        distances = {name: float(np.linalg.norm(key - laid)) for name, laid in self.laid.items()}
        return [
            Neighbour(f"edit-{name}", name, distance, number, self.radius, distance)
            for number, (name, distance) in enumerate(sorted(distances.items(), key=lambda item: item[1]))
        ]


def pico_recipe(folder: Path, task: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe for a pico model, with sections replaced by `changes`."""
    mapping: dict[str, Any] = {
        "name": "pico",
        "task": task,
        "model": {"name_or_path": str(folder), "device": "cpu", "template": "none"},
        "key": {"radius": 0.5},
        "routing": {"scope": "radius"},
        "lora": {"rank": 2, "alpha": 8},
        "training": {
            "batch_size": 4,
            "blocks_in_flight": 1,
            "variants": 0,
            "max_steps": 5,
            "optimizer": {"name": "Adam", "lr": 0.02},
        },
    }
    return recipe_from_mapping(mapping | dict(changes or {}))


@pytest.fixture
def recipe_for() -> Callable[..., Recipe]:
    """`recipe_for(folder, task)`: the recipe that `pico` uses."""
    return pico_recipe


@pytest.fixture(scope="session")
def pico(request: pytest.FixtureRequest) -> Callable[..., OpenProject]:
    """`pico("pico_t5", block_for=[...])`: an open pico model; each prompt listed has a random block.

    The rule is `radius`; `**VERIFIED` makes it the default one.
    """

    def build(kind: str, block_for: Sequence[str] = (), **changes: Any) -> OpenProject:
        recipe = pico_recipe(request.getfixturevalue(kind), TASKS[kind], changes)
        base = load_base_model(recipe.model, recipe.task)
        source, resolved = LaidRoutes(), resolve_recipe(recipe, base)
        if resolved.routing.scope == "verified":
            source.key_map = calibrate(resolved, base, [], SilentReporter()).key_map(seed=0)
        opened = assemble(source, resolved, base)  # type: ignore[arg-type]
        for seed, prompt in enumerate(block_for):
            name = f"b{seed}"
            source.blocks[name] = random_block(opened, name, seed)
            [record] = opened.routed.router.records([prompt], [None])
            source.laid[name], source.words[name], source.texts[name] = record.key, record.tokens, prompt
        return opened

    return build


def random_block(opened: OpenProject, name: str, seed: int, size: float = 0.5) -> Block:
    """A block that changes every answer: both factors random."""
    random = np.random.default_rng(seed)
    slices = {
        module: LoraSlice(
            A=(random.standard_normal((2, layer.in_features)) * size).astype(np.float32),
            B=(random.standard_normal((layer.out_features, 2)) * size).astype(np.float32),
            scale=0.5 + seed,
        )
        for module, layer in opened.routed.tuner.layers.items()
    }
    return Block(name, slices)
