"""From a project on disk to a routed model that answers.

The one way there is `load_base`, `resolve_recipe` for a recipe that is new, and `assemble`. `open_project`
takes it at once; `melo edit` and `melo calibrate` learn scope between the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from melo_cli.errors import BaseMismatchError, ModelError, ProjectError, RecipeError
from melo_cli.models.architecture import (
    default_key_layer,
    require_key_before_targets,
    resolve_key_layer,
    resolve_targets,
)
from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.models.encoding import Encoder
from melo_cli.recipe import ModelSection, Recipe, recipe_from_mapping
from melo_cli.reporter import Reporter, SilentReporter
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.inference import Inference
from melo_cli.runtime.projects import store_path
from melo_cli.runtime.routed_model import RoutedModel
from melo_cli.runtime.told import ToldEdits, takes_facts
from melo_cli.scope.core.pooling import KeyTransform
from melo_cli.scope.core.router import Router, radius_router, verified_router
from melo_cli.scope.core.rules import Route
from melo_cli.scope.reading import reader_for, text_model_of
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel
from melo_cli.versions import library_versions
from melo_store.format.manifest import read_head
from melo_store.project import Project
from melo_store.records import FileEntry, KeyMap


@dataclass(frozen=True)
class OpenProject:
    """A project with its base model loaded and its routes in force."""

    project: Project
    recipe: Recipe
    routed: RoutedModel
    inference: Inference

    def live_blocks(self) -> list[str]:
        """The blocks that still answer an edit, oldest first."""
        answering = {edit.block for edit in self.project.edits() if edit.status == "live"}
        return [block_id for block_id in self.project.block_ids() if block_id in answering]

    @property
    def radius(self) -> float | None:
        """The radius that a new neuron asks for; None under the rule `verified`."""
        radius = self.recipe.key.radius
        return radius if isinstance(radius, float) else None

    def describe(self, artefact: str) -> dict[str, str | int]:
        """What an artefact made from it comes from."""
        return {
            "format": artefact,
            "project": self.project.name,
            "snapshot": self.project.snapshot,
            "base": self.project.base.describe(),
            "melo": library_versions()["melo-cli"],
        }

    @property
    def encoder(self) -> Encoder:
        """Encodes prompts and targets for the base model."""
        return self.inference.encoder

    @cached_property
    def told(self) -> ToldEdits:
        """The edits whose facts stand with open requests; none where another editor routes."""
        in_use = takes_facts(self.routed.base) and self.recipe.routing.open_requests != "base"
        return ToldEdits(
            self.project, self.encoder.takes, in_use=in_use and self.inference.routed is self.routed
        )

    def routes(self, prompts: Sequence[str]) -> list[Route]:
        """The routes of prompts, by their own texts; those of open requests name the edits that are told."""
        return self.told.with_told(prompts, self.inference.routes(prompts))


def load(
    path: str | Path,
    *,
    base: str | None = None,
    device: str | None = None,
    block_cache_mb: int | None = None,
) -> RoutedModel:
    """Open a project, or a folder that `melo export --format routed` wrote, as a routed model.

    Args:
        path: the project's folder, or the exported one.
        base: folder or hub id of the base model, where it is no longer where the project found it.
        device: `cpu`, `cuda`, ...; the recipe's choice when not given.
        block_cache_mb: MiB on the device for blocks that were used lately; 256 when not given.

    Returns:
        The routed model at the newest snapshot.

    Raises:
        MeloError: there is no such project, it is damaged, or the base is not the one it was made on.
    """
    return open_project(Path(path), base=base, device=device, block_cache_mb=block_cache_mb).routed


def open_project(
    path: Path,
    *,
    at: int | None = None,
    base: str | None = None,
    device: str | None = None,
    block_cache_mb: int | None = None,
    weights: bool = True,
    encoder: str | None = None,
) -> OpenProject:
    """Open a project for answering: the snapshot `at`, or the newest.

    Args:
        path: the project's folder, or one that `melo export --format routed` wrote.
        at: number of a snapshot; None is the newest.
        base: folder or hub id of the base model, where it is no longer where the project found it.
        device: `cpu`, `cuda`, ...; the recipe's choice when not given.
        block_cache_mb: MiB on the device for blocks that were used lately; 256 when not given.
        weights: False leaves the base model's weights on disk: what is opened can be written elsewhere, and
            cannot answer.
        encoder: folder or hub id of the sentence encoder, where it is no longer where the project found it.

    Returns:
        The project with its base model loaded and its routes in force.

    Raises:
        MeloError: as `load`.
    """
    store = store_path(path)
    project = Project.open(store, at=at)
    recipe = stored_recipe(project)
    changes: dict[str, str | None] = {"revision": project.base.revision}
    if device is not None:
        changes["device"] = device
    if store != path:  # an exported folder: base model, tokenizer and sentence encoder are in it
        base, changes["tokenizer"] = base or str(path), None
        carried = path / "router" / "encoder"
        encoder = encoder or (str(carried) if carried.is_dir() else None)
    section = model_of(project, recipe, base, **changes)
    loaded = load_base(recipe, section, project, SilentReporter(), weights=weights, encoder=encoder)
    opened = assemble(project, recipe, loaded)
    if block_cache_mb is not None:
        opened.routed.blocks.budget_bytes = block_cache_mb * 2**20
    return opened


def load_base(
    recipe: Recipe,
    section: ModelSection,
    project: Project | None,
    reporter: Reporter,
    *,
    weights: bool = True,
    encoder: str | None = None,
) -> BaseModel:
    """Load the base model of a recipe, and check it against the project that is made on it, if there is one.

    Args:
        recipe: names the task and the sentence encoder.
        section: the base model where it lies now.
        project: the project whose fingerprint it must have; None for a new project.
        reporter: says that the model is loaded.
        weights: False leaves the weights on disk.
        encoder: folder or hub id of the sentence encoder, instead of the recipe's.

    Returns:
        The base model, frozen.

    Raises:
        ModelError: it cannot be loaded.
        BaseMismatchError: the project was made on another base.
    """
    reporter.info(f"loading {section.described}")
    base = load_base_model(section, recipe.task, weights=weights, encoder=encoder or recipe.key.encoder)
    if project is not None:
        project.base.require_same(base_reference(base))
    return base


def model_of(project: Project, recipe: Recipe, named: str | None, **changes: str | None) -> ModelSection:
    """The base model of a project: where the user says that it is, else where the project found it.

    Args:
        project: the project.
        recipe: its recipe.
        named: folder or hub id that the user gives; None if none is given.
        **changes: other fields of the section to set.

    Returns:
        The model section to load.

    Raises:
        ModelError: it is no longer there.
    """
    recorded = project.base.name_or_path
    if named is None and Path(recorded).is_absolute() and not Path(recorded).is_dir():
        raise ModelError(
            "the base model of the project is no longer there",
            where=recorded,
            hint="name the folder where it lies now with --base",
        )
    return recipe.model.at(named or recorded, **changes)


def follow_newest(opened: OpenProject) -> OpenProject:
    """The same base model over the newest snapshot of its project, which another process may have made.

    Raises:
        MeloError: the project is gone or damaged, or another sentence encoder reads its prompts now.
    """
    before = opened.project
    if read_head(before.path).newest.number == before.snapshot:
        return opened
    project = Project.open(before.path)
    recipe = stored_recipe(project)
    if recipe.key.encoder != opened.recipe.key.encoder:
        raise ProjectError(
            "it has been calibrated with another sentence encoder since it was opened",
            where=str(project.path),
            hint="open it again",
        )
    if _key_maps(project) != _key_maps(before):
        opened.routed.router = router_for(recipe, opened.routed.base, project.key_map, project)
    opened.routed.follow(project)
    return replace(opened, project=project, recipe=recipe)


def _key_maps(project: Project) -> list[FileEntry]:
    return [entry for entry in project.files() if entry.role == "keymaps"]


def stored_recipe(project: Project, overrides: Sequence[str] = (), changes: Mapping[str, Any] = {}) -> Recipe:
    """The recipe that a project holds.

    Args:
        project: the project.
        overrides: `--set` texts over it.
        changes: sections that take the place of its own.

    Returns:
        The recipe, checked against the schema.
    """
    values = {**project.recipe, **changes}
    calibration = values.get("calibration")
    if isinstance(calibration, dict):  # what projects of format 2 learnt keys with
        values["calibration"] = {name: calibration[name] for name in calibration.keys() - {"size", "steps"}}
    return recipe_from_mapping(values, overrides, where=f"{project.path}: recipe")


def resolve_recipe(recipe: Recipe, base: BaseModel) -> Recipe:
    """The recipe with every `auto` about the model's modules replaced by what it means for `base`.

    Raises:
        ModelError: a module is missing, or the key layer does not run before every target.
        RecipeError: facts are to stand with open requests, and the model is not asked as a chat.
    """
    if recipe.routing.open_requests == "context" and not takes_facts(base):
        raise RecipeError(
            "facts stand with open requests only where a model that writes text is asked through a chat "
            "template",
            where="routing.open_requests",
            hint="use auto or base, or set model.template=chat",
        )
    targets = resolve_targets(base, recipe.lora.target_modules)
    key = recipe.key
    if base.encoder is None:
        layer = (
            default_key_layer(base, targets) if key.layer == "auto" else resolve_key_layer(base, key.layer)
        )
        require_key_before_targets(base, layer, targets)
        key = key.model_copy(update={"layer": layer})
    if recipe.routing.scope == "radius" and key.pooling == "auto":
        key = key.model_copy(update={"pooling": "mean"})
    tokenizer = recipe.model.tokenizer
    if tokenizer is not None and Path(tokenizer).expanduser().is_dir():
        tokenizer = str(Path(tokenizer).expanduser().resolve())
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(
                update={
                    "tokenizer": tokenizer,
                    "template": base.template,
                    "template_day": base.template_day,
                }
            ),
            "key": key,
            "lora": recipe.lora.model_copy(update={"target_modules": tuple(targets)}),
        }
    )


def router_for(recipe: Recipe, base: BaseModel, key_map: KeyMap | None, project: Project) -> Router:
    """The router of a project, by the rule that its recipe names.

    Args:
        recipe: a resolved recipe.
        base: the base model, with the sentence encoder that the recipe names.
        key_map: scope model and threshold, or a learned projection; None before the first calibration.
        project: holds the neurons.

    Returns:
        The router.

    Raises:
        ProjectError: the project waits for its first calibration.
        BaseMismatchError: its scope was learnt with another sentence encoder.
    """
    arrays = {name: torch.tensor(array) for name, array in (key_map.arrays if key_map else {}).items()}
    if recipe.routing.scope == "radius":
        settings = key_map.settings if key_map is not None else {"pooling": recipe.key.pooling, "unit": False}
        transform = KeyTransform.from_arrays(settings, arrays)
        return radius_router(text_model_of(base), recipe.key.layer, base.max_length, transform, project)
    if key_map is None:
        raise ProjectError(
            "its scope is not learnt yet", where=str(project.path), hint="run `melo edit RECIPE` again"
        )
    _require_same_encoder(base, key_map, project)
    return verified_router(key_map.settings, arrays, reader_for(base, recipe.key.layer), project)


def _require_same_encoder(base: BaseModel, key_map: KeyMap, project: Project) -> None:
    learnt_with = key_map.settings.get("encoder")
    if learnt_with != (base.encoder.fingerprint if base.encoder is not None else None):
        raise BaseMismatchError(
            "its scope was learnt with another sentence encoder",
            where=str(project.path),
            hint="run `melo calibrate --set key.encoder=NAME` with the one to use from now on",
        )


def encoder_for(recipe: Recipe, base: BaseModel) -> Encoder:
    """Encodes prompts and targets as a recipe says."""
    truncate = recipe.dataset is not None and recipe.dataset.long_prompts == "truncate"
    return Encoder(base, template=base.template, truncate=truncate)


def tuner_for(recipe: Recipe, base: BaseModel) -> DynamicLoraModel:
    """The base with the target modules of a resolved recipe wrapped."""
    targets = recipe.lora.target_modules
    config = DynamicLoraConfig(r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(targets))
    return DynamicLoraModel(base.model, config)


def assemble(project: Project, recipe: Recipe, base: BaseModel, key_map: KeyMap | None = None) -> OpenProject:
    """Wrap the base's target modules and put the project's routes over it.

    Args:
        project: holds edits, blocks and index.
        recipe: a resolved recipe.
        base: the base model, unwrapped.
        key_map: one that is not in force yet, in place of the project's.

    Returns:
        The project, open for answering.

    Raises:
        ProjectError: the project waits for its first calibration.
    """
    router = router_for(recipe, base, key_map or project.key_map, project)
    routed = RoutedModel(base, tuner_for(recipe, base), router, project)
    return OpenProject(project, recipe, routed, Inference(routed, encoder_for(recipe, base)))
