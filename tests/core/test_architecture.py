"""Which modules a recipe may name, and what it hears when it names others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from melo_cli.errors import ModelError
from melo_cli.models.architecture import list_modules
from melo_cli.models.base_model import load_base_model
from melo_cli.recipe import Recipe
from melo_cli.runtime.loading import OpenProject, resolve_recipe

Pico = Callable[..., OpenProject]
RecipeFor = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("kind", "layer", "targets"),
    [
        (
            "pico_t5",
            "encoder.block.0",
            [
                f"{stack}.block.{block}.layer.{sub}.DenseReluDense.{name}"
                for stack, sub in (("encoder", 1), ("decoder", 2))
                for block in (2, 3)
                for name in ("wi", "wo")
            ],
        ),
        ("pico_gpt2", "transformer.h.0", ["transformer.h.2.mlp.c_fc", "transformer.h.3.mlp.c_fc"]),
        (
            "pico_llama",
            "model.layers.0",
            [f"model.layers.{n}.mlp.{p}" for n in (2, 3) for p in ("up_proj", "down_proj")],
        ),
        (
            "pico_bert",
            "bert.encoder.layer.0",
            [f"bert.encoder.layer.{n}.output.dense" for n in (1, 2, 3)],
        ),
    ],
)
def test_defaults_are_a_block_a_quarter_of_the_way_up_and_the_last_feed_forwards(
    pico: Pico, kind: str, layer: str, targets: list[str]
) -> None:
    recipe = pico(kind).recipe
    assert recipe.key.layer == layer
    assert recipe.key.pooling == "mean"
    assert list(recipe.lora.target_modules) == targets


def test_the_default_key_layer_runs_before_a_target_in_the_first_block(pico: Pico) -> None:
    recipe = pico("pico_gpt2", lora={"target_modules": ["0.mlp.c_fc"]}).recipe
    assert recipe.key.layer == "transformer.wte"


def test_targets_may_be_endings_or_a_regular_expression(pico: Pico) -> None:
    by_ending = pico("pico_llama", lora={"target_modules": ["3.mlp.down_proj"]})
    by_pattern = pico("pico_llama", lora={"target_modules": r"model\.layers\.3\.mlp\.down_.*"})
    assert list(by_ending.recipe.lora.target_modules) == ["model.layers.3.mlp.down_proj"]
    assert by_pattern.recipe.lora.target_modules == by_ending.recipe.lora.target_modules


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "pico_gpt2",
            {"lora": {"target_modules": ["transformer.h.3.mlp.c_fcc"]}},
            r"lora.target_modules: the model has no module 'transformer.h.3.mlp.c_fcc'; "
            r"did you mean transformer.h.3.mlp.c_fc",
        ),
        (
            "pico_gpt2",
            {"lora": {"target_modules": ["transformer.ln_f"]}},
            "is of type LayerNorm, but blocks can only add to",
        ),
        (
            "pico_gpt2",
            {"lora": {"target_modules": r".*\.nothing"}},
            "lora.target_modules: the model has no module",
        ),
        (
            "pico_gpt2",
            {"key": {"layer": "transformer.h.9.mlp.c_fc", "radius": 1.0}},
            r"key.layer: .* did you mean transformer.h.0.mlp.c_fc",
        ),
        (
            "pico_gpt2",
            {"key": {"layer": "transformer.h.3.mlp.c_proj", "radius": 1.0}},
            r"key.layer: transformer.h.3.mlp.c_proj does not run before target transformer.h.2.mlp.c_fc",
        ),
        (
            "pico_gpt2",
            {
                "key": {"layer": "transformer.h.2.mlp.c_fc", "radius": 1.0},
                "lora": {"target_modules": ["transformer.h.2.mlp.c_fc"]},
            },
            "an edit would change its own key",
        ),
        (
            "pico_t5",
            {"key": {"layer": "decoder.block.0.layer.2.DenseReluDense.wi", "radius": 1.0}},
            "is in the decoder, which reads the answer",
        ),
    ],
)
def test_modules_that_cannot_be_are_refused(
    pico: Pico, kind: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        pico(kind, **changes)


def test_the_list_separates_key_layers_from_targets(pico_t5: Path, recipe_for: RecipeFor) -> None:
    base = load_base_model(recipe_for(pico_t5, "zsre").model, "zsre")
    modules = {info.name: info for info in list_modules(base)}
    embeddings = modules["encoder.embed_tokens"]
    assert (embeddings.key_size, embeddings.is_target, embeddings.shape) == (32, False, (400, 32))
    inner = modules["encoder.block.0.layer.1.DenseReluDense.wi"]
    assert (inner.key_size, inner.is_target, inner.shape) == (64, True, (32, 64))
    assert modules["decoder.block.0.layer.2.DenseReluDense.wi"].key_size is None
    assert "lm_head" not in modules


def test_an_unknown_architecture_is_edited_beside_its_attention(
    pico_gpt2: Path, recipe_for: RecipeFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(pico_gpt2, "hallucination")
    base = load_base_model(recipe.model, "hallucination")
    monkeypatch.setattr(base.model.config, "model_type", "unheard-of")
    assert resolve_recipe(recipe, base).lora.target_modules == (
        "transformer.h.2.mlp.c_fc",
        "transformer.h.2.mlp.c_proj",
        "transformer.h.3.mlp.c_fc",
        "transformer.h.3.mlp.c_proj",
    )
