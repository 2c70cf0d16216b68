"""Routed forward and decoding against the plain model and PEFT's own mixed batch, as Markdown tables.

    python benchmarks/speed_serving.py --model FOLDER --repeats 15

Routes and blocks come from a project of 10,000 random blocks on the disk. Every way is timed several times in
turn, in processor time where one thread of a CPU does the work. The tables give medians, and the ratio is the
median of the ratios to the plain model of the same turn. `first time` reads every row's block from the store;
`again` reads them from the cache.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counting import clock
from numpy.typing import NDArray
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig

from melo_cli.models.base_model import ModelKind, load_base_model, model_kind, tasks_of
from melo_cli.recipe import recipe_from_mapping
from melo_cli.runtime.base_reference import base_reference
from melo_cli.runtime.loading import OpenProject, assemble, resolve_recipe
from melo_cli.scope.core.turns import LastUserTurn
from melo_cli.tuner import peft_lora_config
from melo_store.project import Project
from melo_store.records import LoraSlice, NewEdit
from melo_store.writer import open_writer

_A_COMMIT = 1000

Way = Callable[[], Any]


class Workload:
    """Batches of random tokens: one a turn whose rows each have a block, and one whose rows have none.

    Args:
        options: number of turns, rows of a batch and tokens of a row.
        vocabulary: number of tokens that the model knows.
        device: where the batches are.
    """

    def __init__(self, options: argparse.Namespace, vocabulary: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (options.repeats + 2, options.batch, options.length)
        drawn = torch.randint(5, vocabulary, size, generator=generator).to(device)
        self.unknown, *self.edited = drawn
        self.rewind()

    def rewind(self) -> None:
        """Go back to the first batch, whose blocks are PEFT's adapters."""
        self._later = iter(self.edited)
        self.now = next(self._later)

    def next_turn(self) -> None:
        """Move to the next batch, whose blocks are not in the cache yet."""
        self.now = next(self._later)

    @property
    def half(self) -> Tensor:
        """Every other row without a block."""
        fires = torch.arange(len(self.now), device=self.now.device) % 2 == 0
        return torch.where(fires.unsqueeze(1), self.now, self.unknown)


def main() -> None:
    """Time every way and print the tables."""
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder, torch.no_grad():
        opened, unrouted, workload = _open(options, Path(folder) / "project")
        routed = opened.routed
        layers = routed.tuner.layers
        print(  # noqa: T201
            f"{options.model}: batch {options.batch} x {options.length} tokens, {options.blocks} blocks of "
            f"rank {options.rank} on {len(layers)} modules, key at {opened.recipe.key.layer}, "
            f"{options.threads} thread(s)\n"
        )
        adapters = _peft(opened, unrouted, workload, options) if options.adapters else None
        _forward(opened, unrouted, adapters, workload, options)
        if routed.base.kind.generates and options.new:
            _decoding(opened, unrouted, adapters, workload, options)


def _forward(
    opened: OpenProject, unrouted: Any, adapters: Any, workload: Workload, options: argparse.Namespace
) -> None:
    kind, routed = opened.routed.base.kind, opened.routed

    def inputs_of(ids: Tensor) -> dict[str, Tensor]:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return inputs | ({"decoder_input_ids": ids[:, :8]} if kind is ModelKind.SEQ2SEQ else {})

    ways: dict[str, Way] = {
        "plain model": lambda: unrouted(**inputs_of(workload.now)),
        "routed, no row fires": lambda: routed(**inputs_of(workload.unknown)),
        "routed, every row another block, first time": lambda: routed(**inputs_of(workload.now)),
        "routed, every row another block, again": lambda: routed(**inputs_of(workload.now)),
        "routed, half of the rows": lambda: routed(**inputs_of(workload.half)),
    }
    if adapters is not None:
        names = [str(row) for row in range(options.batch)]
        ways[_peft_title(options)] = lambda: adapters(**inputs_of(workload.now), adapter_names=names)
        _require_same(routed(**inputs_of(workload.now)).logits, ways[_peft_title(options)]().logits)
    _table(
        "forward",
        ways,
        workload,
        options.repeats,
        clock(alone=options.device == "cpu" and options.threads == 1),
    )


def _decoding(
    opened: OpenProject, unrouted: Any, adapters: Any, workload: Workload, options: argparse.Namespace
) -> None:
    routed = opened.routed
    writing = {"do_sample": False, "min_new_tokens": options.new, "max_new_tokens": options.new}

    def inputs_of(ids: Tensor) -> dict[str, Any]:
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **writing}

    ways: dict[str, Way] = {
        "plain model": lambda: unrouted.generate(**inputs_of(workload.now)),
        "routed, no row fires": lambda: routed.generate(**inputs_of(workload.unknown)),
        "routed, every row another block": lambda: routed.generate(**inputs_of(workload.now)),
    }
    if adapters is not None:
        names = [str(row) for row in range(options.batch)]
        ways[_peft_title(options)] = lambda: adapters.generate(**inputs_of(workload.now), adapter_names=names)
    workload.rewind()
    _table(
        f"decoding {options.new} tokens",
        ways,
        workload,
        min(options.repeats, options.decodings),
        clock(alone=options.device == "cpu" and options.threads == 1),
    )


def _open(options: argparse.Namespace, path: Path) -> tuple[OpenProject, Any, Workload]:
    task = tasks_of(model_kind(AutoConfig.from_pretrained(options.model)))[0]
    recipe = recipe_from_mapping(
        {
            "name": "speed",
            "task": task,
            "model": {"name_or_path": options.model, "device": options.device},
            "key": {"radius": 1.0},
            "lora": {"rank": options.rank},
        },
        options.set,
    )
    base = load_base_model(recipe.model, task)
    unrouted = _twin(base.model)
    recipe = resolve_recipe(recipe, base)
    workload = Workload(options, len(base.tokenizer), base.model.device)
    project = Project.create(
        path, name="speed", base=base_reference(base), recipe=recipe.to_mapping(), seed=0, versions={}
    )
    opened = assemble(project, recipe, base)
    turns = LastUserTurn(base.tokenizer)
    texts = [turns.text(row) for ids in workload.edited for row in ids.tolist()]
    records = opened.routed.router.records(texts, [None] * len(texts))
    _fill(opened, np.stack([record.key for record in records]), options)
    return opened, unrouted, workload


def _twin(model: Any) -> Any:
    """The same model with modules of its own; weights are shared, so that none lies better in memory."""
    return copy.deepcopy(model, {id(weight): weight for weight in [*model.parameters(), *model.buffers()]})


def _fill(opened: OpenProject, keys: NDArray[np.float32], options: argparse.Namespace) -> None:
    """One block for each key, and blocks with keys drawn like them for the rest."""
    random = np.random.default_rng(0)
    others = random.normal(keys.mean(0), keys.std(0), (max(options.blocks - len(keys), 0), keys.shape[1]))
    every = np.concatenate([keys, others.astype(np.float32)])
    radius = 1e-3 * float(np.linalg.norm(keys - keys.mean(0), axis=1).mean())
    shapes = {
        name: (layer.in_features, layer.out_features) for name, layer in opened.routed.tuner.layers.items()
    }
    with open_writer(opened.project) as writer:
        for start in range(0, len(every), _A_COMMIT):
            numbers = range(start, min(start + _A_COMMIT, len(every)))
            edits = [
                NewEdit(f"prompt {n}", "answer", label=(n,), key=every[n], block=str(n), radius=radius)
                for n in numbers
            ]
            blocks = {str(n): _block(random, shapes, options.rank) for n in numbers}
            writer.stage(edits, blocks).commit(recipe=opened.recipe.to_mapping(), seed=0, versions={})
        opened.routed.follow(writer.project)


def _block(
    random: np.random.Generator, shapes: dict[str, tuple[int, int]], rank: int
) -> dict[str, LoraSlice]:
    return {
        name: LoraSlice(
            A=random.standard_normal((rank, inputs), np.float32) * np.float32(0.01),
            B=random.standard_normal((outputs, rank), np.float32) * np.float32(0.01),
            scale=1.0,
        )
        for name, (inputs, outputs) in shapes.items()
    }


def _peft(opened: OpenProject, unrouted: Any, workload: Workload, options: argparse.Namespace) -> Any:
    """PEFT's own model, its adapters those blocks that the first batch asks for and more."""
    config = peft_lora_config(
        rank=options.rank,
        scale=1.0,
        target_modules=list(opened.routed.tuner.layers),
        fan_in_fan_out=False,
        task_type=None,
        base_model=options.model,
        revision=None,
    )
    model = get_peft_model(_twin(unrouted), config, adapter_name="0")
    for number in range(1, options.adapters):
        model.add_adapter(str(number), config)
    block_ids = opened.routed.source.block_ids()  # type: ignore[attr-defined]
    for number in range(options.adapters):
        block = opened.routed.source.block(block_ids[number])
        for name, piece in block.slices.items():
            layer = model.base_model.model.get_submodule(name)
            layer.lora_A[str(number)].weight.copy_(torch.tensor(piece.A))
            layer.lora_B[str(number)].weight.copy_(torch.tensor(piece.B))
    return model.eval()


def _peft_title(options: argparse.Namespace) -> str:
    return f"PEFT adapter_names, {options.adapters} adapters loaded"


def _require_same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def _table(
    title: str, ways: dict[str, Way], workload: Workload, repeats: int, now: Callable[[], float]
) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(repeats + 1):
        if run:
            workload.next_turn()
        for name, work in ways.items():
            started = now()
            work()
            if run:  # the first one warms up
                seconds[name].append(now() - started)
    unrouted = seconds["plain model"]
    print(f"| {title} | ms | times the plain model | ms above it |\n| --- | --- | --- | --- |")  # noqa: T201
    for name, taken in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(taken, unrouted, strict=True))
        above = statistics.median(own - other for own, other in zip(taken, unrouted, strict=True))
        middle = statistics.median(taken)
        print(f"| {name} | {middle * 1e3:.1f} | {ratio:.3f} | {above * 1e3:.2f} |")  # noqa: T201
    print()  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder")
    parser.add_argument("--set", action="append", default=[], help="as of melo edit: lora.target_modules=...")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64, help="tokens a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to decode; 0 leaves decoding out")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=10000, help="blocks in the store")
    parser.add_argument("--adapters", type=int, default=100, help="that PEFT has loaded; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--decodings", type=int, default=7, help="repeats of the decoding")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="folder for the project; the system's if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
