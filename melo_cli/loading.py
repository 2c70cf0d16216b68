"""From a project on disk to a routed model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melo_cli.answering import Asker
from melo_cli.architecture import require_key_before_targets, resolve_key_layer, resolve_targets
from melo_cli.base_model import BaseModel, load_base_model
from melo_cli.encoding import Encoder
from melo_cli.errors import ProjectError, RecipeError
from melo_cli.keys import KeyExtractor, KeyTransform
from melo_cli.projects import EXPORTED_PROJECT
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.routed import RoutedModel
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel
from melo_cli.versions import library_versions
from store.project import Project
from store.records import KeyMap


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

    @property
    def radius(self) -> float:
        """The radius that a new neuron asks for."""
        radius = self.recipe.key.radius
        assert isinstance(radius, float), "`assemble` takes calibrated recipes alone"
        return radius

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


def load(
    path: str | Path,
    *,
    base: str | None = None,
    device: str | None = None,
    block_cache_mb: int | None = None,
) -> RoutedModel:
    """Open a project, or a folder that `melo export --format routed` wrote, as a routed model.

    Args:
        base: folder or hub id of the base model, where it is no longer where the project found it.
        device: `cpu`, `cuda`, ...; the recipe's choice when not given.
        block_cache_mb: MiB on the device for blocks that were used lately; 256 when not given.

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
) -> OpenProject:
    """Open a project for answering: the snapshot `at`, or the newest.

    Args:
        block_cache_mb: MiB on the device for blocks that were used lately.
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
    opened = assemble(project, recipe, base_model)
    if block_cache_mb is not None:
        opened.routed.blocks.budget_bytes = block_cache_mb * 2**20
    return opened


def resolve_recipe(recipe: Recipe, base: BaseModel, kept: Recipe | None = None) -> Recipe:
    """The recipe with every `auto` about the model's modules replaced by what it means for `base`.

    A key that is still to be calibrated stays as it is.

    Args:
        kept: the recipe of the project that goes on, if any: its key stands for `key.radius: auto`.

    Raises:
        ModelError: a module is missing, or the key layer does not run before every target.
        RecipeError: a key is to be learned, but not calibrated.
    """
    targets = resolve_targets(base, recipe.lora.target_modules)
    key = kept.key if kept is not None and recipe.key.needs_calibration else recipe.key
    if not key.needs_calibration:
        if key.pooling == "learned" and kept is None:
            raise RecipeError(
                "a learned key has no unit to give a radius in",
                where="key.radius",
                mend="set key.radius=auto, or another key.pooling",
            )
        pooling = "mean" if key.pooling == "auto" else key.pooling
        layer = resolve_key_layer(base, key.layer)
        key = key.model_copy(update={"layer": layer, "pooling": pooling})
    if key.layer != "auto":
        require_key_before_targets(base, resolve_key_layer(base, key.layer), targets)
    tokenizer = recipe.model.tokenizer
    if tokenizer is not None and Path(tokenizer).expanduser().is_dir():
        tokenizer = str(Path(tokenizer).expanduser().resolve())
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"tokenizer": tokenizer}),
            "key": key,
            "lora": recipe.lora.model_copy(update={"target_modules": tuple(targets)}),
        }
    )


def key_transform(key_map: KeyMap | None, recipe: Recipe, base: BaseModel) -> KeyTransform:
    """How hidden states become keys: as calibrated, else pooled as the recipe says."""
    if key_map is None:
        return KeyTransform(recipe.key.pooling)
    return KeyTransform.from_key_map(key_map, base.model.device)


def encoder_for(recipe: Recipe, base: BaseModel) -> Encoder:
    """Encodes prompts and targets as a recipe says."""
    truncate = recipe.dataset is not None and recipe.dataset.long_prompts == "truncate"
    return Encoder(base, template=recipe.model.template, truncate=truncate)


def assemble(project: Project, recipe: Recipe, base: BaseModel, key_map: KeyMap | None = None) -> OpenProject:
    """Wrap the base's target modules and put the project's routes over it; `recipe` is a resolved one.

    Args:
        key_map: one that is not in force yet, in place of the project's.

    Raises:
        ProjectError: the project waits for its first calibration.
    """
    if recipe.key.needs_calibration:
        raise ProjectError(
            "its key is not calibrated yet", where=str(project.path), mend="run `melo edit RECIPE` again"
        )
    targets = recipe.lora.target_modules
    config = DynamicLoraConfig(r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(targets))
    keys = KeyExtractor(base, recipe.key.layer, key_transform(key_map or project.key_map, recipe, base))
    routed = RoutedModel(base, DynamicLoraModel(base.model, config), keys, project)
    return OpenProject(project, recipe, routed, Asker(routed, encoder_for(recipe, base)))
