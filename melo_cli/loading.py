"""From a project on disk to a routed model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melo_cli.answering import Asker
from melo_cli.architecture import require_key_before_targets, resolve_key_layer, resolve_targets
from melo_cli.base_model import BaseModel, load_base_model
from melo_cli.encoding import Encoder
from melo_cli.keys import KeyExtractor
from melo_cli.projects import EXPORTED_PROJECT
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.routed import RoutedModel
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel
from melo_cli.versions import library_versions
from store.project import Project


@dataclass(frozen=True)
class OpenProject:
    """A project with its base model loaded and its routes in force."""

    project: Project
    recipe: Recipe
    routed: RoutedModel
    asker: Asker

    def live_blocks(self) -> list[str]:
        """The blocks that still answer an edit, oldest first."""
        answering = {edit.block for edit in self.project.edits() if edit.status == "live"}
        return [block_id for block_id in self.project.block_ids() if block_id in answering]

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
        return self.asker.encoder


def load(path: str | Path, *, base: str | None = None, device: str | None = None) -> RoutedModel:
    """Open a project, or a folder that `melo export --format routed` wrote, as a routed model.

    Args:
        base: folder or hub id of the base model, where it is no longer where the project found it.
        device: `cpu`, `cuda`, ...; the recipe's choice when not given.

    Raises:
        MeloError: there is no such project, it is damaged, or the base is not the one it was made on.
    """
    return open_project(Path(path), base=base, device=device).routed


def open_project(
    path: Path,
    *,
    at: int | None = None,
    base: str | None = None,
    device: str | None = None,
    weights: bool = True,
) -> OpenProject:
    """Open a project for answering: the snapshot `at`, or the newest.

    Args:
        weights: False leaves the base model's weights on disk: what is opened can be written elsewhere, and
            cannot answer.

    Raises:
        MeloError: as `load`.
    """
    exported = path / EXPORTED_PROJECT
    is_exported = exported.is_dir()
    if is_exported:
        path, base = exported, base or str(exported.parent)
    project = Project.open(path, at=at)
    recipe = recipe_from_mapping(project.recipe, where=f"{path}: recipe")
    changes = {"name_or_path": base or project.base.name_or_path, "revision": project.base.revision}
    if is_exported:
        changes["tokenizer"] = None  # it lies beside the model
    if device is not None:
        changes["device"] = device
    model_section = recipe.model.model_copy(update=changes)
    base_model = load_base_model(model_section, recipe.task, weights=weights)
    project.base.require_same(base_model.reference)
    return assemble(project, recipe, base_model)


def resolve_recipe(recipe: Recipe, base: BaseModel) -> Recipe:
    """The recipe with every `auto` about the model's modules replaced by what it means for `base`.

    Raises:
        ModelError: a module is missing, or the key layer does not run before every target.
    """
    layer = resolve_key_layer(base, recipe.key.layer)
    targets = resolve_targets(base, recipe.lora.target_modules)
    require_key_before_targets(base, layer, targets)
    tokenizer = recipe.model.tokenizer
    if tokenizer is not None and Path(tokenizer).expanduser().is_dir():
        tokenizer = str(Path(tokenizer).expanduser().resolve())
    pooling = "mean" if recipe.key.pooling == "auto" else recipe.key.pooling
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"tokenizer": tokenizer}),
            "key": recipe.key.model_copy(update={"layer": layer, "pooling": pooling}),
            "lora": recipe.lora.model_copy(update={"target_modules": tuple(targets)}),
        }
    )


def encoder_for(recipe: Recipe, base: BaseModel) -> Encoder:
    """Encodes prompts and targets as a recipe says."""
    truncate = recipe.dataset is not None and recipe.dataset.long_prompts == "truncate"
    return Encoder(base, template=recipe.model.template, truncate=truncate)


def assemble(project: Project, recipe: Recipe, base: BaseModel) -> OpenProject:
    """Wrap the base's target modules and put the project's routes over it; `recipe` is a resolved one."""
    targets = recipe.lora.target_modules
    config = DynamicLoraConfig(r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(targets))
    keys = KeyExtractor(base, recipe.key.layer, recipe.key.pooling)
    routed = RoutedModel(base, DynamicLoraModel(base.model, config), keys, project)
    return OpenProject(project, recipe, routed, Asker(routed, encoder_for(recipe, base)))
