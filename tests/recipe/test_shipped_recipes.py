"""The recipes that come with melo: they load, say how to use them, and hold the published settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from melo_cli.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMED = ["hallucination_gpt2xl", "scotus_bert", "zsre_t5large", "zsre_t5small"]
SHIPPED = ["llama", *NAMED, *(f"published/{name}" for name in NAMED)]


def t5_targets(*blocks: int) -> set[str]:
    stacks = (("encoder", 1), ("decoder", 2))
    return {
        f"{stack}.block.{block}.layer.{layer}.DenseReluDense.{part}"
        for stack, layer in stacks
        for block in blocks
        for part in ("wi", "wo")
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "scotus_bert": {
        "task": "scotus",
        "model": "tomh/scotus-bert",
        "batch": 50,
        "rank": 4,
        "scale": 100,
        "radius": 0.1,
        "lr": 1e-2,
        "step": (30, 0.5),
        "layer": "bert.encoder.layer.4.output.dense",
        "targets": {f"bert.encoder.layer.{number}.output.dense" for number in (9, 10, 11)},
        "max_edits": None,
    },
    "zsre_t5small": {
        "task": "zsre",
        "model": "google/t5-small-ssm-nq",
        "batch": 100,
        "rank": 2,
        "scale": 20,
        "radius": 75,
        "lr": 1e-2,
        "step": (20, 0.5),
        "layer": "encoder.block.4.layer.1.DenseReluDense.wo",
        "targets": t5_targets(5, 6),
        "max_edits": 1000,
    },
    "zsre_t5large": {
        "task": "zsre",
        "model": "google/t5-large-ssm-nq",
        "batch": 100,
        "rank": 2,
        "scale": 20,
        "radius": 75,
        "lr": 1e-2,
        "step": (20, 0.5),
        "layer": "encoder.block.12.layer.1.DenseReluDense.wo",
        "targets": t5_targets(22, 23),
        "max_edits": 1000,
    },
    "hallucination_gpt2xl": {
        "task": "hallucination",
        "model": "openai-community/gpt2-xl",
        "batch": 4,
        "rank": 2,
        "scale": 350,
        "radius": 0.5,
        "lr": 1e-3,
        "step": (30, 0.5),
        "layer": "transformer.h.35.mlp.c_fc",
        "targets": {"transformer.h.36.mlp.c_fc", "transformer.h.37.mlp.c_fc"},
        "max_edits": None,
    },
}


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_under_its_own_name(name: str) -> None:
    folder, _, file = name.rpartition("/")
    assert load_recipe(RECIPES / f"{name}.yaml").name == (f"{file}_published" if folder else name)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_header_says_how_to_get_run_and_override(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nname:")]
    assert all(line.startswith("#") or not line for line in header.splitlines())
    task = load_recipe(RECIPES / f"{name}.yaml").task
    for needed in (
        "hub",
        "data",
        f"melo edit recipes/{name}.yaml",
        f"melo eval --task {task}",
        "--set",
        "relative to the directory",
    ):
        assert needed in header


@pytest.mark.parametrize("name", SHIPPED)
def test_the_overrides_in_its_header_are_valid(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    matches = re.findall(r"--set (?:'([^']+)'|(\S+))", path.read_text(encoding="utf-8"))
    overrides = [quoted or bare for quoted, bare in matches]
    assert overrides
    for override in overrides:
        load_recipe(path, [override])


@pytest.mark.parametrize("folder", ["", "published/"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_it_holds_the_published_settings(name: str, folder: str) -> None:
    recipe, published = load_recipe(RECIPES / f"{folder}{name}.yaml"), PUBLISHED[name]
    assert recipe.task == published["task"]
    assert recipe.model.name_or_path == published["model"]
    assert recipe.dataset is not None
    assert recipe.dataset.max_edits == published["max_edits"]
    assert recipe.dataset.locality is not None
    assert set(recipe.lora.target_modules) == published["targets"]
    assert (recipe.lora.rank, recipe.lora.scale) == (published["rank"], published["scale"])
    training = recipe.training
    assert (training.batch_size, training.max_steps) == (published["batch"], 50)
    assert (training.optimizer.name, training.optimizer.arguments) == ("Adam", {"lr": published["lr"]})
    assert training.lr_scheduler is not None
    assert training.lr_scheduler.name == "StepLR"
    assert training.lr_scheduler.arguments == {
        "step_size": published["step"][0],
        "gamma": published["step"][1],
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_scope_is_learnt_and_the_published_key_kept_beside(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.yaml").routing.scope == "verified"
    recipe, published = load_recipe(RECIPES / f"published/{name}.yaml"), PUBLISHED[name]
    assert (recipe.key.layer, recipe.key.pooling) == (published["layer"], "last")
    assert (recipe.routing.scope, recipe.key.radius) == ("radius", published["radius"])
    assert (recipe.training.stop_at, recipe.training.retries) == (None, 0)


def test_opinions_are_cut_and_no_other_prompt_is() -> None:
    for name in SHIPPED:
        dataset = load_recipe(RECIPES / f"{name}.yaml").dataset
        assert dataset is not None
        assert dataset.long_prompts == ("truncate" if name.endswith("scotus_bert") else "error")


def test_remote_code_is_off_everywhere() -> None:
    for path in RECIPES.rglob("*.yaml"):
        assert load_recipe(path).model.trust_remote_code is False
