"""Weights are the process's own memory: no page of the checkpoint file is left among them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.recipe import recipe_from_mapping

on_linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell")


def loaded(folder: Path, dtype: str) -> BaseModel:
    model = {"name_or_path": str(folder), "dtype": dtype, "device": "cpu"}
    recipe = recipe_from_mapping(
        {"name": "pico", "task": "hallucination", "model": model, "key": {"radius": 1.0}}
    )
    return load_base_model(recipe.model, recipe.task)


@pytest.fixture
def stored_as(pico_gpt2: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`stored_as(dtype)`: the pico GPT-2 saved in that dtype."""

    def save(dtype: torch.dtype) -> Path:
        AutoModelForCausalLM.from_pretrained(pico_gpt2, dtype=dtype).save_pretrained(tmp_path)
        for file in pico_gpt2.glob("*token*"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    return save


@on_linux
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_no_weight_is_a_view_of_the_file(stored_as, stored: torch.dtype, dtype: str) -> None:  # type: ignore[no-untyped-def]
    folder = stored_as(stored)
    model = loaded(folder, dtype).model
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    bounds = [line[0].split("-") for line in lines if line[-1].endswith(".safetensors")]
    mapped = [range(int(begin, 16), int(end, 16)) for begin, end in bounds]
    assert not any(weight.data_ptr() in file for weight in model.parameters() for file in mapped)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_weights_are_those_of_transformers(stored_as, stored: torch.dtype, dtype: str) -> None:  # type: ignore[no-untyped-def]
    folder = stored_as(stored)
    base = loaded(folder, dtype)
    wanted = dtype if dtype != "auto" else "float32"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=wanted)
    ours = base.model.state_dict()
    assert base.model.dtype == theirs.dtype == base.model.config.dtype
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())
    assert base.model.lm_head.weight is base.model.transformer.wte.weight
