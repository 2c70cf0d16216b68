"""Routed forward and decoding against the plain model and PEFT's own mixed batch, as Markdown tables.

    python benchmarks/speed_serving.py --model FOLDER --blocks 100 --repeats 7

Blocks are random. Every way is timed in turn, and the tables give medians.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig

from melo_cli.base_model import ModelKind, load_base_model, model_kind, tasks_of
from melo_cli.loading import OpenProject, assemble, resolve_recipe
from melo_cli.recipe import recipe_from_mapping
from melo_cli.tuner import peft_lora_config
from store.records import Block, LoraSlice, Neighbour, Route


@dataclass
class Shelf:
    """Blocks by number and routes laid down by the caller, in place of a project on disk."""

    shapes: dict[str, tuple[int, int]]
    rank: int
    fired: list[int | None]

    def lookup(self, keys: NDArray[np.float32]) -> list[Route]:
        return [
            Route(None if k is None else Neighbour("e", str(k), 0, 0.0, 1.0, 0.0), None) for k in self.fired
        ]

    def block(self, block_id: str) -> Block:
        random = np.random.default_rng(int(block_id))
        slices = {
            name: LoraSlice(
                A=random.standard_normal((self.rank, inputs)).astype(np.float32) * 0.01,
                B=random.standard_normal((outputs, self.rank)).astype(np.float32) * 0.01,
                scale=1.0,
            )
            for name, (inputs, outputs) in self.shapes.items()
        }
        return Block(block_id, slices)


def main() -> None:
    """Time every way and print the table."""
    options = _options()
    torch.set_num_threads(options.threads)
    opened, plain = _open(options)
    shelf: Any = opened.routed.source
    ids = _prompts(opened, options)
    ways = {"plain model": lambda: plain(**ids)}
    rows = options.batch
    routings = {
        "routed, no row fires": [None] * rows,
        "routed, every row another block": list(range(rows)),
        "routed, half of the rows": [k if k % 2 else None for k in range(rows)],
    }
    for name, fired in routings.items():
        ways[name] = _routed(opened, shelf, fired, lambda: opened.routed(**ids))
    if options.blocks:
        ways[f"PEFT adapter_names, {options.blocks} adapters loaded"] = _peft(opened, plain, ids, options)
    print(f"{options.model}: batch {rows} x {options.length} tokens, {options.threads} thread(s)\n")  # noqa: T201
    _table("forward", ways, options.repeats)
    if opened.routed.base.kind.generates:
        writing = {"do_sample": False, "min_new_tokens": options.new, "max_new_tokens": options.new}
        asked = {name: ids[name] for name in ("input_ids", "attention_mask")}
        decoding = {"plain model": lambda: plain.generate(**asked, **writing)}
        for name, fired in routings.items():
            decoding[name] = _routed(opened, shelf, fired, lambda: opened.routed.generate(**asked, **writing))
        _table(f"decoding {options.new} tokens", decoding, options.repeats)


def _open(options: argparse.Namespace) -> tuple[OpenProject, Any]:
    task = tasks_of(model_kind(AutoConfig.from_pretrained(options.model)))[0]
    recipe = recipe_from_mapping(
        {
            "name": "speed",
            "task": task,
            "model": {"name_or_path": options.model, "device": options.device},
            "key": {"radius": 1.0},
            "lora": {"rank": options.rank},
        }
    )
    base = load_base_model(recipe.model, task)
    plain = copy.deepcopy(base.model)
    shelf: Any = Shelf({}, options.rank, [])
    opened = assemble(shelf, resolve_recipe(recipe, base), base)
    layers = opened.routed.tuner.layers.items()
    shelf.shapes = {name: (layer.in_features, layer.out_features) for name, layer in layers}
    return opened, plain


def _prompts(opened: OpenProject, options: argparse.Namespace) -> dict[str, Tensor]:
    size = len(opened.routed.tokenizer)
    ids = torch.randint(5, size, (options.batch, options.length), generator=torch.Generator().manual_seed(0))
    ids = ids.to(opened.routed.device)
    prompts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if opened.routed.base.kind is ModelKind.SEQ2SEQ:
        prompts["decoder_input_ids"] = ids[:, :8]
    return prompts


def _routed(
    opened: OpenProject, shelf: Any, fired: list[int | None], work: Callable[[], object]
) -> Callable[[], object]:
    def run() -> object:
        shelf.fired = fired
        return work()

    return run


def _peft(
    opened: OpenProject, plain: Any, ids: dict[str, Tensor], options: argparse.Namespace
) -> Callable[[], object]:
    config = peft_lora_config(
        rank=options.rank,
        scale=1.0,
        target_modules=list(opened.routed.tuner.layers),
        fan_in_fan_out=False,
        task_type=None,
        base_model=options.model,
        revision=None,
    )
    config.init_lora_weights = False
    model = get_peft_model(copy.deepcopy(plain), config, adapter_name="0")
    for number in range(1, options.blocks):
        model.add_adapter(str(number), config)
    model.eval()
    names = [str(row) for row in range(options.batch)]
    return lambda: model(**ids, adapter_names=names)


@torch.no_grad()
def _table(title: str, ways: dict[str, Callable[[], object]], repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(repeats + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if run:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    plain = statistics.median(seconds["plain model"])
    print(f"| {title} | ms | times the plain model |\n| --- | --- | --- |")  # noqa: T201
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle * 1e3:.1f} | {middle / plain:.2f} |")  # noqa: T201
    print()  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64, help="tokens a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to decode")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument(
        "--blocks", type=int, default=100, help="adapters that PEFT has loaded; 0 leaves it out"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
