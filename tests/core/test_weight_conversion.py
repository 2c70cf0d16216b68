"""Weights in another type than the checkpoint's: the same values, and not the checkpoint beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.models.weight_conversion import convert_weights
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
def test_pages_of_the_checkpoint_go_as_its_weights_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({str(number): torch.randn(512, 1024).to(torch.bfloat16) for number in range(8)}, path)
    mapped = load_file(path)
    read = sum(weight.float().sum().item() for weight in mapped.values())
    assert resident(path) > path.stat().st_size // 2
    model = nn.ParameterList(nn.Parameter(weight) for weight in mapped.values())
    convert_weights(model, torch.float32)
    assert resident(path) < path.stat().st_size // 10
    assert {weight.dtype for weight in model} == {torch.float32}
    assert sum(weight.sum().item() for weight in model) == pytest.approx(read)


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in memory."""
    ours, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


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
