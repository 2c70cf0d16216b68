"""The router beside a server of adapters: it says which adapter answers each prompt, and answers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melo_cli.base_model import BaseModel, load_base_model
from melo_cli.encoding import Encoder, pad_prompts
from melo_cli.errors import ExportError, PromptError
from melo_cli.exporting.merging.checkpoint import stored_names
from melo_cli.exporting.router_files import ROUTER, key_map_of
from melo_cli.exporting.standalone.exact_router import (
    ARRAYS,
    TABLE,
    Fired,
    KeyMap,
    Router,
)
from melo_cli.exporting.tensor_files import open_shard
from melo_cli.fingerprint import weight_files
from melo_cli.keys import hidden_states
from melo_cli.loading import open_project
from melo_cli.recipe import ModelSection
from store.project import Project
from store.records import BaseReference

Keys = NDArray[np.float32]
_ROWS = 32


@dataclass(frozen=True)
class PromptRoute:
    """Where one prompt goes.

    Attributes:
        fired: the edit whose adapter answers; None for the base, and where there is an error.
        error: why the prompt has no route.
    """

    prompt: str
    fired: Fired | None
    error: str | None = None


class PromptRouter:
    """Routes prompts as a project does; of the base model it holds what the key layer needs.

    Args:
        load: loads the base with or without its weights.
        dtype: that of the recipe's `model.dtype`, in which keys are made.
        lookup: the routes of keys `[n, k]` float32.
    """

    def __init__(
        self,
        load: Callable[[bool], tuple[BaseModel, Encoder]],
        layer: str,
        dtype: str,
        key_map: KeyMap,
        lookup: Callable[[Keys], Sequence[Fired | None]],
    ) -> None:
        base, self._encoder = load(False)
        self._key_map = key_map
        self._lookup = lookup
        # A subclass may do more than look a token up.
        if type(base.model.get_submodule(layer)) is nn.Embedding:
            self._hidden = _embedded(base, layer, dtype)
        else:
            self._hidden = _run_to(load(True)[0], layer)

    def route(self, prompts: Sequence[str]) -> list[PromptRoute]:
        """Routes of prompts, in order; one that cannot be asked says why."""
        encoded: dict[int, tuple[int, ...]] = {}
        errors: dict[int, str] = {}
        for place, prompt in enumerate(prompts):
            try:
                encoded[place] = self._encoder.prompt(prompt)
            except PromptError as error:
                errors[place] = str(error)
        fired = dict(zip(encoded, self._routes(list(encoded.values())), strict=True))
        return [
            PromptRoute(prompt, fired.get(place), errors.get(place)) for place, prompt in enumerate(prompts)
        ]

    @torch.no_grad()
    def _routes(self, encoded: Sequence[tuple[int, ...]]) -> list[Fired | None]:
        keys = []
        for start in range(0, len(encoded), _ROWS):
            hidden, mask = self._hidden(encoded[start : start + _ROWS])
            keys.append(self._key_map(hidden, mask).cpu().numpy())
        return list(self._lookup(np.concatenate(keys))) if keys else []


Hidden = Callable[[Sequence[tuple[int, ...]]], tuple[Tensor, Tensor]]


def router_of_project(path: Path, *, at: int | None = None, base: str | None = None) -> PromptRouter:
    """The router of a project, by its index.

    Raises:
        MeloError: as `melo_cli.load`.
    """

    def load(weights: bool) -> tuple[BaseModel, Encoder]:
        opened = open_project(path, at=at, base=base, weights=weights)
        return opened.routed.base, opened.encoder

    opened = open_project(path, at=at, base=base, weights=False)
    settings, arrays = key_map_of(opened)
    recipe = opened.recipe
    key_map = KeyMap(**(settings | arrays))
    return PromptRouter(load, recipe.key.layer, recipe.model.dtype, key_map, _of_store(opened.project))


def router_of_export(
    folder: Path, *, base: str | None = None, trust_remote_code: bool = False, allow_pickle: bool = False
) -> PromptRouter:
    """The router of a `peft` export: the exact search in its `router/`.

    Args:
        folder: the export, or its `router/`.
        base: folder or hub id of the base model, where it is no longer where the project found it.
        trust_remote_code, allow_pickle: as of a recipe's `model`, for the base.

    Raises:
        TrustError: the base asks for trust that is not given.
        ExportError: there is no router.
        BaseMismatchError: the base is another one than the project's.
    """
    place = folder / ROUTER if (folder / ROUTER).is_dir() else folder
    if not (place / TABLE).is_file():
        raise ExportError(
            f"there is no {TABLE} in it",
            where=str(folder),
            mend="name a folder of `melo export --format peft`",
        )
    router = Router.open(place / TABLE, place / ARRAYS)
    held, tokens = router.table["base"], router.table["tokenizer"]
    reference = BaseReference(held["name_or_path"], held["revision"], held["fingerprint"])
    section = ModelSection(
        name_or_path=base or reference.name_or_path,
        revision=None if base else reference.revision,
        tokenizer=tokens["name_or_path"],
        dtype=held["dtype"],
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )

    def load(weights: bool) -> tuple[BaseModel, Encoder]:
        found = load_base_model(section, "custom", weights=weights)
        reference.require_same(found.reference)
        return found, Encoder(found, template=tokens["template"], truncate=tokens["truncate"])

    return PromptRouter(load, router.layer, section.dtype, router.key_map, router.route)


def _of_store(project: Project) -> Callable[[Keys], list[Fired | None]]:
    def lookup(keys: Keys) -> list[Fired | None]:
        found = (route.fired for route in project.lookup(keys, nearest=False))
        return [
            None
            if fired is None or fired.block is None
            else Fired(fired.edit_id, fired.block, None, fired.distance)
            for fired in found
        ]

    return lookup


def _embedded(base: BaseModel, layer: str, dtype: str) -> Hidden:
    """The input embeddings alone, read from the checkpoint: the rest of the base stays on disk."""
    weight = _read_weight(base, f"{layer}.weight")
    if dtype != "auto":
        weight = weight.to(getattr(torch, dtype))

    def look_up(encoded: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        length = max(len(ids) for ids in encoded)
        ids = torch.zeros((len(encoded), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(encoded):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        return weight[ids], mask

    return look_up


def _read_weight(base: BaseModel, parameter: str) -> Tensor:
    shards = [open_shard(path) for path in weight_files(base.folder)]
    names = stored_names(base, [parameter], [name for shard in shards for name in shard.tensors])
    shard, name = next((shard, name) for shard in shards for name in names if name in shard.tensors)
    return shard.read(name)


def _run_to(base: BaseModel, layer: str) -> Hidden:
    """The base as far as the key layer."""

    def run(encoded: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        inputs = pad_prompts(base, encoded)
        return hidden_states(base, [layer], inputs)[layer], inputs["attention_mask"]

    return run
