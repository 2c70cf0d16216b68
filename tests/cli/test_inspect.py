"""`melo inspect`: modules, shapes and defaults."""

from __future__ import annotations

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
