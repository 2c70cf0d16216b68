"""Loading a base model: what fits, what is refused, and what tells two models apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from melo_cli.errors import ModelError
from melo_cli.models.base_model import ModelKind, load_base_model
from melo_cli.models.fingerprint import fingerprint
from melo_cli.recipe import Recipe

RecipeFor = Callable[..., Recipe]


def load(recipe_for: RecipeFor, folder: Path, task: str, **model: Any) -> Any:
    section = {"name_or_path": str(folder), "device": "cpu", **model}
    return load_base_model(recipe_for(folder, task, {"model": section}).model, task)


@pytest.mark.parametrize(
    ("fixture", "task", "kind"),
    [
        ("pico_t5", "zsre", ModelKind.SEQ2SEQ),
        ("pico_gpt2", "hallucination", ModelKind.CAUSAL),
        ("pico_llama", "zsre", ModelKind.CAUSAL),
        ("pico_bert", "scotus", ModelKind.CLASSIFIER),
    ],
)
def test_the_kind_is_read_off_the_checkpoint(
    request: pytest.FixtureRequest, recipe_for: RecipeFor, fixture: str, task: str, kind: ModelKind
) -> None:
    base = load(recipe_for, request.getfixturevalue(fixture), task)
    assert base.kind is kind
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training


@pytest.mark.parametrize(
    ("fixture", "task", "needs"),
    [
        ("pico_t5", "scotus", "sequence classifier"),
        ("pico_bert", "zsre", "encoder-decoder language model or decoder-only language model"),
        ("pico_t5", "hallucination", "decoder-only language model"),
    ],
)
def test_a_kind_that_does_not_fit_the_task_is_refused(
    request: pytest.FixtureRequest, recipe_for: RecipeFor, fixture: str, task: str, needs: str
) -> None:
    with pytest.raises(ModelError, match=f"task {task} needs a {needs}"):
        load(recipe_for, request.getfixturevalue(fixture), task)


def test_pickled_weights_need_a_word(pico_gpt2: Path, recipe_for: RecipeFor, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(pico_gpt2, folder)
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors weights; .*--set model.allow_pickle=true"):
        load(recipe_for, folder, "custom")
    assert load(recipe_for, folder, "custom", allow_pickle=True).kind is ModelKind.CAUSAL


def test_a_checkpoint_without_its_head_is_refused(
    pico_bert: Path, recipe_for: RecipeFor, tmp_path: Path
) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(pico_bert, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no weights for classifier.bias, classifier.weight"):
        load(recipe_for, folder, "scotus")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "there is no such folder"),
        ("no-such-model-anywhere", "neither a folder nor a model on the hub"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    pico_gpt2: Path, recipe_for: RecipeFor, name: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(recipe_for, pico_gpt2, "custom", name_or_path=name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, recipe_for: RecipeFor) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="the config of the model cannot be loaded"):
        load(recipe_for, tmp_path, "custom")


def test_a_device_that_is_not_there_is_refused(pico_gpt2: Path, recipe_for: RecipeFor) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match="model.device: this machine has no cuda"):
        load(recipe_for, pico_gpt2, "custom", device="cuda")


def test_the_fingerprint_follows_the_weights_and_the_settings(pico_gpt2: Path, tmp_path: Path) -> None:
    first = fingerprint(pico_gpt2)
    moved = tmp_path / "moved"
    shutil.copytree(pico_gpt2, moved)
    assert fingerprint(moved) == first
    weights = load_file(moved / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"] += 0.01
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(moved)["weights"] != first["weights"]
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    (moved / "config.json").write_text(json.dumps(config | {"n_head": 2}), encoding="utf-8")
    assert fingerprint(moved)["config"] != first["config"]
    (moved / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}), encoding="utf-8")
    assert fingerprint(moved)["config"] == first["config"]


def test_half_precision_is_widened_on_a_cpu_only(
    pico_gpt2: Path, recipe_for: RecipeFor, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    load(recipe_for, pico_gpt2, "custom").model.half().save_pretrained(folder)
    for path in pico_gpt2.glob("tokenizer*"):
        shutil.copy(path, folder)
    assert load(recipe_for, folder, "custom").model.dtype is torch.float32
    assert load(recipe_for, folder, "custom", dtype="bfloat16").model.dtype is torch.bfloat16
