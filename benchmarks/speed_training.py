"""Seconds a block: the published procedure against melo, side by side, as Markdown tables.

    python benchmarks/speed_training.py benchmarks/recipes/zsre_t5.yaml --set model.name_or_path=FOLDER \
        --set dataset.edits=FILE --stop-at 0.7 --blocks 3 --repeats 5

The published procedure: the whole model forward and backward at each of a fixed number of steps, logits at
every position, one LoRA matrix over all blocks with Adam over the whole of it, classification inputs padded
to the model's longest. Both train the same blocks of the same edits from the same start, in turn.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from melo_cli.base_model import BaseModel, ModelKind, load_base_model
from melo_cli.datasets import load_edits
from melo_cli.editing.optimizers import build_optimizer, build_scheduler
from melo_cli.editing.training import TrainedBlock, initial_parameters, train_block
from melo_cli.encoding import IGNORED, EncodedEdit
from melo_cli.loading import encoder_for, resolve_recipe
from melo_cli.recipe import Recipe, TrainingSection, load_recipe
from melo_cli.reporter import SilentReporter
from melo_cli.scoring import target_batch
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel


class WholeMatrix(nn.Module):
    """A target module with one LoRA matrix over all blocks, of which a pass uses one block's slice."""

    def __init__(self, base_layer: nn.Module, A: Tensor, B: Tensor, scale: float, blocks: int) -> None:
        super().__init__()
        self.base_layer, self.scale, self.rank, self.block = base_layer, scale, A.shape[1], 0
        self.A = nn.Parameter(A[0].repeat(blocks, 1))
        self.B = nn.Parameter(B[0].repeat(1, blocks))

    @property
    def weight(self) -> Tensor:
        """What transformers' T5 asks of its layers."""
        weight: Tensor = self.base_layer.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        own = slice(self.block * self.rank, (self.block + 1) * self.rank)
        result: Tensor = self.base_layer(x) + (x @ self.A[own].T @ self.B[:, own].T) * self.scale
        return result


class Published:
    """The published procedure over a copy of the base model."""

    def __init__(self, base: BaseModel, recipe: Recipe, tuner: DynamicLoraModel, blocks: int) -> None:
        self.recipe, self.base = recipe, base
        self.model = copy.deepcopy(base.model)
        parameters = iter(initial_parameters(tuner, rank=recipe.lora.rank, seed=recipe.seed))
        self.layers = []
        for name in tuner.layers:
            inner = self.model.get_submodule(f"{name}.base_layer")
            layer = WholeMatrix(inner, next(parameters), next(parameters), recipe.lora.scale, blocks)
            self.model.set_submodule(name, layer)
            self.layers.append(layer)

    def train(self, block: int, edits: Sequence[EncodedEdit], steps: int) -> list[float]:
        for layer in self.layers:
            layer.block = block
        parameters = [matrix for layer in self.layers for matrix in (layer.A, layer.B)]
        optimizer = build_optimizer(self.recipe.training.optimizer, parameters)
        section = self.recipe.training.lr_scheduler
        scheduler: Any = build_scheduler(section, optimizer) if section is not None else None
        inputs, labels = self._inputs(edits)
        losses = []
        for _ in range(steps):
            logits = self.model(**inputs).logits
            logits = logits[:, :-1] if self.base.kind is ModelKind.CAUSAL else logits
            loss = nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]).float(), labels.flatten(), ignore_index=IGNORED
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            losses.append(loss.item())
        return losses

    def _inputs(self, edits: Sequence[EncodedEdit]) -> tuple[dict[str, Any], Tensor]:
        batch = target_batch(self.base, edits)
        inputs = {name: value for name, value in batch.inputs.items() if name != "logits_to_keep"}
        if self.base.kind is ModelKind.CAUSAL:
            length = inputs["input_ids"].shape[1] - 1  # type: ignore[union-attr]
            labels = torch.full((len(edits), length), IGNORED)
            labels[:, length - batch.targets.shape[1] :] = batch.targets
            return inputs, labels
        if self.base.kind is ModelKind.CLASSIFIER and self.base.max_length is not None:
            missing = self.base.max_length - inputs["input_ids"].shape[1]  # type: ignore[union-attr]
            inputs = {name: nn.functional.pad(value, (0, missing)) for name, value in inputs.items()}  # type: ignore[arg-type]
        return inputs, batch.targets


class Bytes(TorchDispatchMode):
    """Counts the bytes that every operation reads and writes; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, given)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return given


def main() -> None:
    """Train the first blocks of a recipe both ways and print the tables."""
    options = _options()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, options.set)
    base = load_base_model(recipe.model, recipe.task)
    recipe = resolve_recipe(recipe, base)
    assert recipe.dataset is not None
    size = recipe.training.batch_size
    section = recipe.dataset.model_copy(update={"max_edits": options.blocks * size})
    encoder = encoder_for(recipe, base)
    edits = [
        encoder.edit(edit.prompt, edit.target) for edit in load_edits(section, recipe.task, SilentReporter())
    ]
    config = DynamicLoraConfig(
        r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(recipe.lora.target_modules)
    )
    tuner = DynamicLoraModel(base.model, config)
    batches = [edits[start : start + size] for start in range(0, len(edits), size)]
    print(  # noqa: T201
        f"{base.reference.name_or_path}: {len(batches)} blocks of {size} edits, {options.threads} thread(s)\n"
    )
    _compare(base, tuner, recipe, batches, options)
    _count(base, tuner, recipe, batches[0], options)


def _compare(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    batches: Sequence[Sequence[EncodedEdit]],
    options: argparse.Namespace,
) -> None:
    steps = recipe.training.max_steps
    fixed = recipe.training.model_copy(update={"stop_at": None})
    stopping = fixed.model_copy(update={"stop_at": options.stop_at})
    ours = lambda edits, training: _ours(base, tuner, recipe, edits, training)  # noqa: E731
    ways: dict[str, Callable[[int], Sequence[float]]] = {
        "published procedure": lambda k: published.train(k, batches[k], steps),
        "melo, as many steps": lambda k: ours(batches[k], fixed).losses,
        f"melo, stopping at {options.stop_at}": lambda k: ours(batches[k], stopping).losses,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    taken: dict[str, list[int]] = {way: [] for way in ways}
    last: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        published = Published(base, recipe, tuner, options.all_blocks)
        for k in range(len(batches)):
            for way, train in ways.items():
                started = time.perf_counter()
                losses = train(k)
                seconds[way].append(time.perf_counter() - started)
                taken[way].append(len(losses))
                last[way].append(losses[-1])
    edits_a_block = statistics.mean(len(batch) for batch in batches)
    slow = statistics.median(seconds["published procedure"])
    print(  # noqa: T201
        "| | seconds a block | edits/s | times | steps | last loss |\n| --- | --- | --- | --- | --- | --- |"
    )
    for way in ways:
        middle = statistics.median(seconds[way])
        print(  # noqa: T201
            f"| {way} | {middle:.2f} | {edits_a_block / middle:.2f} | {slow / middle:.1f} "
            f"| {statistics.mean(taken[way]):.0f} | {statistics.mean(last[way]):.3f} |"
        )


def _count(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    edits: Sequence[EncodedEdit],
    options: argparse.Namespace,
) -> None:
    """Operations and bytes of a step, as the difference of a run of three steps and a run of two."""
    published = Published(base, recipe, tuner, options.all_blocks)
    ways: dict[str, Callable[[int], object]] = {
        "published procedure": lambda steps: published.train(0, edits, steps),
        "melo": lambda steps: _ours(
            base,
            tuner,
            recipe,
            edits,
            recipe.training.model_copy(update={"max_steps": steps, "stop_at": None}),
        ),
    }
    rate, copied = _matmul_rate(), _copy_rate()
    print(  # noqa: T201
        f"\nMeasured: {rate / 1e9:.0f} GFLOP/s (matrix product of 1,024), {copied / 1e9:.1f} GB/s (copy).\n\n"
        "| a step | GFLOP | GB read and written | ms | of the product rate | of the copy rate |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for way, train in ways.items():
        flops = _difference(
            train, lambda: FlopCounterMode(display=False), lambda mode: mode.get_total_flops()
        )
        moved = _difference(train, Bytes, lambda mode: mode.total)
        step = statistics.median(_seconds(train, 6) - _seconds(train, 2) for _ in range(options.repeats)) / 4
        print(  # noqa: T201
            f"| {way} | {flops / 1e9:.2f} | {moved / 1e9:.2f} | {step * 1e3:.0f} "
            f"| {flops / step / rate:.0%} | {moved / step / copied:.0%} |"
        )


def _ours(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    edits: Sequence[EncodedEdit],
    training: TrainingSection,
) -> TrainedBlock:
    lora = recipe.lora
    return train_block(base, tuner, edits, training, rank=lora.rank, scale=lora.scale, seed=recipe.seed)


def _difference(
    train: Callable[[int], object], make: Callable[[], Any], read: Callable[[Any], float]
) -> float:
    totals = []
    for steps in (2, 3):
        with make() as mode:
            train(steps)
        totals.append(read(mode))
    return totals[1] - totals[0]


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _matmul_rate() -> float:
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(_seconds(lambda: a @ a) for _ in range(20))


def _copy_rate() -> float:
    a = torch.randn(2**24)
    b = torch.empty_like(a)
    return 2 * a.nbytes / min(_seconds(lambda: b.copy_(a)) for _ in range(10))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], help="as of melo edit")
    parser.add_argument("--stop-at", type=float, default=0.7, help="least probability of a target token")
    parser.add_argument("--blocks", type=int, default=3, help="blocks to train")
    parser.add_argument("--all-blocks", type=int, default=20, help="blocks in the published run's matrix")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
