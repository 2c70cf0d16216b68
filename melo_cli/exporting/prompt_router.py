"""The router beside a server of adapters: it names the adapter for each prompt, and generates no answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.errors import ExportError, PromptError
from melo_cli.exporting.merging.checkpoint import stored_names
from melo_cli.exporting.router_files import ROUTER
from melo_cli.exporting.tensor_files import open_shard
from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.models.encoding import Encoder
from melo_cli.models.fingerprint import weight_files
from melo_cli.recipe import ModelSection
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import open_project
from melo_cli.runtime.told import ToldEdits
from melo_cli.scope.core.exported import TABLE, open_router
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import NO_ROUTE, Route
from melo_cli.scope.core.turns import LastUserTurn
from melo_store.records import BaseReference


@dataclass(frozen=True)
class PromptRoute:
    """The route of one prompt.

    Attributes:
        prompt: the prompt; of a text that the chat template wrote, the last user turn.
        route: the route; that of the base model if there is an error.
        asked: what the model is to be asked: the prompt, with the facts of the edits that are told.
        error: why the prompt cannot be routed; None if it can.
    """

    prompt: str
    route: Route
    asked: str
    error: str | None = None


class PromptRouter:
    """Routes prompts as a project does.

    Args:
        router: the router.
        encoder: checks that the base model takes the prompts.
        told: the edits whose facts stand with open requests.

    Attributes:
        router: the router.
        told: the same.
        kind: the kind of the base model.
    """

    def __init__(self, router: Router, base: BaseModel, encoder: Encoder, told: ToldEdits) -> None:
        self.router = router
        self.told = told
        self.kind = base.kind
        self._encoder = encoder
        self._turns = LastUserTurn(encoder.tokenizer)

    def route(self, prompts: Sequence[str]) -> list[PromptRoute]:
        """The routes of prompts, in order."""
        asked = [self.last_turn(prompt) for prompt in prompts]
        errors = {text: error for text in asked if (error := self._error(text)) is not None}
        good = [text for text in asked if text not in errors]
        routes = dict(zip(good, self.routes(good), strict=True))
        return [
            PromptRoute(text, route, self.told.asked(text, route), errors.get(text))
            for text, route in ((text, routes.get(text, NO_ROUTE)) for text in asked)
        ]

    def routes(self, texts: Sequence[str]) -> list[Route]:
        """The routes of prompts that the base model takes; those of open requests with the edits that are
        told."""
        return self.told.with_told(texts, self.router.routes(texts))

    def last_turn(self, text: str) -> str:
        """The last user turn of a text that the chat template has written; any other text as it is."""
        return self._turns.within(text)

    def _error(self, text: str) -> str | None:
        try:
            self._encoder.prompt(text)
        except PromptError as error:
            return str(error)
        return None


def router_of_project(path: Path, *, at: int | None = None, base: str | None = None) -> PromptRouter:
    """The router of a project, by its index.

    Raises:
        MeloError: as `melo_cli.load`.
    """
    opened = open_project(path, at=at, base=base, weights=False)
    base_model, recipe = opened.routed.base, opened.recipe
    if base_model.encoder is None and not _read_embeddings(base_model, recipe.key.layer, recipe.model.dtype):
        opened = open_project(path, at=at, base=base)
    return PromptRouter(opened.routed.router, opened.routed.base, opened.encoder, opened.told)


def router_of_export(
    folder: Path, *, base: str | None = None, trust_remote_code: bool = False, allow_pickle: bool = False
) -> PromptRouter:
    """The router of a `peft` or `gguf` export: the exact search in its `router/`.

    Args:
        folder: the export, or its `router/`.
        base: folder or hub id of the base model, if it has moved since the project was made.
        trust_remote_code: as in a recipe's `model`, for the base model.
        allow_pickle: as in a recipe's `model`, for the base model.

    Raises:
        TrustError: the base model needs `trust_remote_code` or `allow_pickle`.
        ExportError: there is no router in the folder.
        BaseMismatchError: the base model is not the project's.
    """
    router_folder = folder / ROUTER if (folder / ROUTER).is_dir() else folder
    if not (router_folder / TABLE).is_file():
        raise ExportError(
            f"the folder has no {TABLE}",
            where=str(folder),
            hint="name a folder of `melo export --format peft` or `--format gguf`",
        )
    table = json.loads((router_folder / TABLE).read_text(encoding="utf-8"))
    held, tokens = table["base"], table["tokenizer"]
    reference = BaseReference(held["name_or_path"], held["revision"], held["fingerprint"])
    section = ModelSection(
        name_or_path=reference.name_or_path,
        gguf_file=held["gguf_file"],
        revision=None if base else reference.revision,
        tokenizer=tokens["name_or_path"],
        template=tokens["template"],
        template_day=tokens["template_day"],
        dtype=held["dtype"],
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    ).at(base or reference.name_or_path)
    base_model = load_base_model(section, "custom", weights=False)
    reference.require_same(base_reference(base_model))
    if table["encoder"] is None and not _read_embeddings(base_model, table["reading"]["high"], section.dtype):
        base_model = load_base_model(section, "custom")
    router = open_router(router_folder, base_model.model, base_model.tokenizer)
    encoder = Encoder(base_model, template=tokens["template"], truncate=tokens["truncate"])
    # An export of an older melo says nothing of open requests.
    told = ToldEdits(ExportedFacts(table["neurons"]), encoder.takes, in_use=table.get("open_requests", False))
    return PromptRouter(router, base_model, encoder, told)


class ExportedFacts:
    """The edits of an export, as far as they are told.

    Args:
        rows: its neurons.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._facts = {row["edit_id"]: ExportedFact(row["prompt"], row.get("target", "")) for row in rows}
        self._subjects = {
            row["edit_id"]: row["subject"]
            for row in rows
            if row.get("subject") is not None and row["adapter"] is not None
        }

    def live_subjects(self) -> Mapping[str, str]:
        """The subject of every edit that has an adapter."""
        return self._subjects

    def edit(self, edit_id: str, /) -> ExportedFact:
        """An edit by its id."""
        return self._facts[edit_id]


@dataclass(frozen=True)
class ExportedFact:
    """What is told of an edit."""

    prompt: str
    target: str


def _read_embeddings(base: BaseModel, layer: str, dtype: str) -> bool:
    """Load the input embeddings alone, if the key layer is the input embeddings.

    Returns:
        Whether the key layer is the input embeddings.
    """
    # A subclass may do more than look a token up.
    if type(base.model.get_submodule(layer)) is not nn.Embedding:
        return False
    weight = _read_weight(base, f"{layer}.weight")
    if dtype != "auto":
        weight = weight.to(getattr(torch, dtype))
    base.model.set_submodule(layer, nn.Embedding.from_pretrained(weight))
    return True


def _read_weight(base: BaseModel, parameter: str) -> Tensor:
    shards = [open_shard(path) for path in weight_files(base.folder)]
    names = stored_names(base, [parameter], [name for shard in shards for name in shard.tensors])
    shard, name = next((shard, name) for shard in shards for name in names if name in shard.tensors)
    return shard.read(name)
