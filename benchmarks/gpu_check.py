"""Edits a second, routed against plain forward, and 1,000 blocks from the cache, as a Markdown table.

    python benchmarks/gpu_check.py [--dry-run]

Models of the shapes of SmolLM2-135M, GPT2-XL and Llama-3-8B with random weights, bfloat16 on a GPU. An edit
is a block of rank 1 on one module of the last layer but one, trained for ten steps on its prompt and eight
variants of 44 tokens, of which all share the first 24, and a target of 5; eight are in flight.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from melo_cli.editing.training import train_blocks
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.models.fingerprint import ModelReference
from melo_cli.models.special_tokens import SpecialTokens
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.block_cache import BlockCache
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel
from melo_store.records import Block, LoraSlice

_LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
_SMOL = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
_SMALL = {"vocab_size": 512, "hidden_size": 72, "intermediate_size": 128, "num_hidden_layers": 4}
SHAPES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "SmolLM2-135M": (LlamaConfig, _SMOL, "model.layers.{}.mlp.down_proj"),
    "GPT2-XL": (GPT2Config, {"n_embd": 1600, "n_layer": 48, "n_head": 25}, "transformer.h.{}.mlp.c_fc"),
    "Llama-3-8B": (LlamaConfig, _LLAMA_8B, "model.layers.{}.mlp.down_proj"),
}
DRY = {
    "small Llama": (LlamaConfig, _SMOL | _SMALL, "model.layers.{}.mlp.down_proj"),
    "small GPT-2": (
        GPT2Config,
        {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 1},
        "transformer.h.{}.mlp.c_fc",
    ),
}
_STEPS, _VARIANTS, _SHARED, _PROMPT, _TARGET = 10, 8, 24, 44, 5
_BATCH, _LENGTH, _REPEATS = 8, 64, 20


def main() -> None:
    """Measure each shape, and print the table row by row."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() and not options.dry_run else "cpu")
    named = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(  # noqa: T201
        f"{named}, torch {torch.__version__}\n\n"
        "| shape | edits/s | plain forward, ms | routed, half of the rows: times plain "
        "| routed, every row another block: times plain "
        f"| {options.blocks:,} blocks from the cache, prompts/s "
        "| peak memory, GiB |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, shape in (DRY if options.dry_run else SHAPES).items():
        print(f"| {name} | {' | '.join(_measured(*shape, device, options))} |", flush=True)  # noqa: T201


def _measured(
    kind: Any, sizes: dict[str, Any], module: str, device: torch.device, options: argparse.Namespace
) -> Iterator[str]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    base = _base(kind(**sizes), device)
    target = module.format(base.model.config.num_hidden_layers - 2)
    tuner = DynamicLoraModel(base.model, DynamicLoraConfig(1, 1.0, [target]))
    yield f"{_edits_a_second(base, tuner, device, options.edits):.1f}"
    yield from _answering(base, tuner, target, device, options.blocks)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    yield f"{peak:.1f}"


def _base(config: Any, device: torch.device) -> BaseModel:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    nothing = SimpleNamespace()
    return BaseModel(
        model,
        nothing,  # tokens are drawn, and no text is read
        ModelKind.CAUSAL,
        ModelReference("random", None, {}),
        Path(),
        max_length=1024,
        takes_positions=True,
        special=SpecialTokens(0, (1,), 1),
    )


def _edits_a_second(base: BaseModel, tuner: DynamicLoraModel, device: torch.device, edits: int) -> float:
    training = TrainingSection(max_steps=_STEPS, stop_at=None, blocks_in_flight=8)
    drawn = np.random.default_rng(0)
    shared = _drawn(base, drawn, _SHARED)

    def edit(target: tuple[int, ...]) -> EncodedEdit:
        return EncodedEdit((*shared, *_drawn(base, drawn, _PROMPT - _SHARED)), (*target, 1))

    blocks = []
    for _ in range(edits):
        target = _drawn(base, drawn, _TARGET - 1)
        blocks.append([edit(target) for _ in range(1 + _VARIANTS)])
    train_blocks(base, tuner, blocks[:8], training, rank=1, scale=1.0, seed=0)  # checks and warms up
    started = _now(device)
    train_blocks(base, tuner, blocks, training, rank=1, scale=1.0, seed=0)
    return edits / (_now(device) - started)


@torch.no_grad()
def _answering(
    base: BaseModel, tuner: DynamicLoraModel, target: str, device: torch.device, count: int
) -> Iterator[str]:
    drawn = np.random.default_rng(1)
    layer = tuner.layers[target]

    def block(block_id: str) -> Block:
        A = drawn.standard_normal((1, layer.in_features), np.float32)
        B = drawn.standard_normal((layer.out_features, 1), np.float32) * np.float32(1e-3)
        return Block(block_id, {target: LoraSlice(A=A, B=B, scale=1.0)})

    cache = BlockCache(block, device)
    ids = torch.randint(2, base.model.config.vocab_size, (_BATCH, _LENGTH), device=device)
    names = [str(number) for number in range(count)]

    def forward(block_ids: list[str | None] | None) -> None:
        banks = cache.banks(block_ids) if block_ids is not None else None
        with tuner.using(*banks) if banks is not None else nullcontext():
            base.model(input_ids=ids, logits_to_keep=1)

    mixed: list[str | None] = [name if row % 2 else None for row, name in enumerate(names[:_BATCH])]
    ways = {"plain": None, "half": mixed, "every": list(names[:_BATCH])}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_REPEATS):
        for name, block_ids in ways.items():
            seconds[name].append(_taken(lambda block_ids=block_ids: forward(block_ids), device))
    plain = statistics.median(seconds["plain"][1:])
    yield f"{plain * 1e3:.1f}"
    for name in ("half", "every"):
        yield f"{statistics.median(seconds[name][1:]) / plain:.3f}"

    def all_blocks() -> None:
        for start in range(0, count, _BATCH):
            forward(list(names[start : start + _BATCH]))

    all_blocks()  # reads them
    yield f"{count / _taken(all_blocks, device):.0f}"


def _drawn(base: BaseModel, drawn: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(drawn.integers(2, base.model.config.vocab_size, count).tolist())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _taken(work: Callable[[], None], device: torch.device) -> float:
    started = _now(device)
    work()
    return _now(device) - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="small shapes on the CPU")
    options = parser.parse_args()
    options.edits, options.blocks = (8, 64) if options.dry_run else (32, 1000)
    return options


if __name__ == "__main__":
    main()
