"""`melo inspect`: modules, shapes and defaults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Melo = Callable[..., Any]


def test_blocks_that_repeat_are_folded(pico_t5: Path, melo: Melo) -> None:
    run = melo("inspect", pico_t5)
    assert run.code == 0
    lines = [line.split() for line in run.out.splitlines()]
    assert ["encoder.block.0-3.layer.1.DenseReluDense.wo", "Linear", "64", "32", "32", "yes"] in lines
    assert ["decoder.block.0-3.layer.2.DenseReluDense.wo", "Linear", "64", "32", "-", "yes"] in lines
    assert ["tasks", "zsre,", "counterfact,", "custom"] in lines
    assert ["lora.target_modules", "decoder.block.3.layer.2.DenseReluDense.wo"] in lines
    every = melo("inspect", pico_t5, "--all").out
    assert "encoder.block.2.layer.1.DenseReluDense.wo" in every
    assert "0-3" not in every


def test_json_lists_every_module(pico_bert: Path, melo: Melo) -> None:
    document = melo("inspect", pico_bert, "--json").json
    assert (document["kind"], document["tasks"]) == ("SEQ_CLS", ["scotus", "custom"])
    names = [module["name"] for module in document["modules"]]
    assert "bert.encoder.layer.2.output.dense" in names
    assert document["key_layer"] in names
    assert set(document["target_modules"]) <= set(names)
    (module,) = (one for one in document["modules"] if one["name"] == "bert.encoder.layer.2.output.dense")
    assert (module["shape"], module["key_size"], module["target"]) == ([64, 32], 32, True)


def test_no_such_model(here: Path, melo: Melo) -> None:
    run = melo("inspect", "./nope")
    assert (run.code, run.error) == (2, "./nope: there is no such folder; check model.name_or_path")


def test_pickled_weights_are_read_where_the_option_allows_it(pickled: Path, melo: Melo) -> None:
    run = melo("inspect", "pickled")
    assert (run.code, run.error) == (
        2,
        "pickled: the model has no safetensors weights; convert the weights, or add --allow-pickle "
        "if you trust the source of the pickled weights",
    )
    run = melo("inspect", "pickled", "--allow-pickle", "--json")
    assert (run.code, run.json["kind"]) == (0, "CAUSAL_LM")


def test_edit_names_the_key_of_the_recipe_that_allows_it(
    pickled: Path, melo: Melo, write_recipe: Callable[..., None]
) -> None:
    write_recipe(pickled.parent, "small", pickled, "custom")
    run = melo("edit", "small.yaml")
    assert run.code == 2
    assert "or add --set model.allow_pickle=true if you trust" in run.error
    assert melo("edit", "small.yaml", "--set", "model.allow_pickle=true").code == 0
    assert melo("query", "By whom was it opened?").code == 0, "the project keeps its recipe"


def test_a_model_with_its_own_code_names_the_option(here: Path, pico_gpt2: Path, melo: Melo) -> None:
    shutil.copytree(pico_gpt2, here / "own")
    settings = json.loads((here / "own/config.json").read_text(encoding="utf-8"))
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (here / "own/config.json").write_text(json.dumps(settings), encoding="utf-8")
    (here / "own/own.py").write_text("raise SystemExit('it ran')\n", encoding="utf-8")
    run = melo("inspect", "own")
    assert (run.code, run.error) == (
        2,
        "own: the config of the model cannot be loaded, because it has its own code; add --trust-remote-code "
        "if you trust this code",
    )
