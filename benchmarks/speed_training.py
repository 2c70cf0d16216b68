"""Seconds a block: the published procedure against melo, side by side, as Markdown tables.

    python benchmarks/speed_training.py benchmarks/recipes/zsre_t5.yaml --set model.name_or_path=FOLDER \
        --set dataset.edits=FILE --blocks 3 --repeats 5

The published procedure: the whole model forward and backward at each of a fixed number of steps, logits at
every position, one LoRA matrix over all blocks with Adam over the whole of it, classification inputs padded
to the model's longest. Both train the same blocks of the same edits from the same start, in turn. ES is the
share of edits of which every target token is the model's first choice after training: where it differs, the
speeds do not compare. With one thread on a CPU, times are processor time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from counting import Parts, bytes_of, clock, copy_rate, operations_of, product_rate
from torch import Tensor, nn

from melo_cli.datasets import load_edits
from melo_cli.editing import training as melo_training
from melo_cli.editing.optimizers import build_optimizer, build_scheduler
from melo_cli.editing.training import TrainedBlock, initial_parameters, train_block, train_blocks
from melo_cli.models.base_model import BaseModel, ModelKind, load_base_model
from melo_cli.models.encoding import IGNORED, EncodedEdit
from melo_cli.recipe import Recipe, TrainingSection, load_recipe
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import encoder_for, resolve_recipe
from melo_cli.runtime.scoring import target_batch, target_logits
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel, SliceBank

_PARTS = ["forward, once", "forward", "backward", "optimizer"]


class WholeMatrix(nn.Module):
    """A target module with one LoRA matrix over all blocks, of which a pass uses one block's slice.

    Args:
        base_layer: the linear module.
        A: `[1, rank, in]`, the start of each block.
        B: `[1, out, rank]`, the start of each block.
        scale: `alpha / rank`.
        blocks: number of blocks.

    Attributes:
        block: the block whose slice is used.
    """

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
        """`base_layer(x)` plus the block in use, `[..., out]`."""
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

    def train(
        self, block: int, edits: Sequence[EncodedEdit], steps: int, parts: Parts | None = None
    ) -> list[float]:
        """Train one block with the published procedure.

        Args:
            block: number of the block, from 0.
            edits: the edits of its batch.
            steps: number of steps.
            parts: measures the forward pass, the backward pass and the optimizer.

        Returns:
            The loss of each step, nats a token.
        """
        parts = parts or Parts(lambda: 0.0)
        for layer in self.layers:
            layer.block = block
        parameters = [matrix for layer in self.layers for matrix in (layer.A, layer.B)]
        optimizer = build_optimizer(self.recipe.training.optimizer, parameters)
        section = self.recipe.training.lr_scheduler
        scheduler: Any = build_scheduler(section, optimizer) if section is not None else None
        inputs, labels = self._inputs(edits)
        losses = []
        for _ in range(steps):
            with parts.part("forward"):
                logits = self.model(**inputs).logits
                logits = logits[:, :-1] if self.base.kind is ModelKind.CAUSAL else logits
                loss = nn.functional.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]).float(), labels.flatten(), ignore_index=IGNORED
                )
            with parts.part("backward"):
                optimizer.zero_grad()
                loss.backward()
            with parts.part("optimizer"):
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
            losses.append(loss.item())
        return losses

    def edit_success(self, block: int, edits: Sequence[EncodedEdit]) -> float:
        """Edit success of one block.

        Args:
            block: number of the block, from 0.
            edits: the edits of its batch.

        Returns:
            The share of edits of which every target token is the model's first choice.
        """
        for layer in self.layers:
            layer.block = block
        return _edit_success(replace(self.base, model=self.model), edits)

    def _inputs(self, edits: Sequence[EncodedEdit]) -> tuple[dict[str, Any], Tensor]:
        batch = target_batch(self.base, edits)
        inputs = {name: value for name, value in batch.inputs.items() if name != "logits_to_keep"}
        if self.base.kind is ModelKind.CAUSAL:
            length = inputs["input_ids"].shape[1] - 1
            labels = torch.full((len(edits), length), IGNORED)
            labels[:, length - batch.targets.shape[1] :] = batch.targets
            return inputs, labels
        if self.base.kind is ModelKind.CLASSIFIER and self.base.max_length is not None:
            missing = self.base.max_length - inputs["input_ids"].shape[1]
            inputs = {name: nn.functional.pad(value, (0, missing)) for name, value in inputs.items()}
        return inputs, batch.targets


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
    if options.length:
        edits = [_as_long(edit, options.length) for edit in edits]
    config = DynamicLoraConfig(
        r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(recipe.lora.target_modules)
    )
    tuner = DynamicLoraModel(base.model, config)
    batches = _split(edits, size)
    print(  # noqa: T201
        f"{base.reference.name_or_path}: {len(batches)} blocks of {size} edits, prompts of "
        f"{statistics.median(len(edit.prompt_ids) for edit in edits):.0f} tokens (median), "
        f"{len(tuner.layers)} target modules, {options.threads} thread(s)\n"
    )
    if options.in_flight:
        _in_flight(base, tuner, recipe, edits, options)
        return
    _compare(base, tuner, recipe, batches, options)
    _count(base, tuner, recipe, batches[0], options)


@dataclass
class Way:
    """One way of training blocks, and what it took.

    Attributes:
        train: trains block `k` and gives the losses of its steps.
        success: ES of block `k`, which was trained last.
    """

    train: Callable[[int], Sequence[float]]
    success: Callable[[int], float]

    def __post_init__(self) -> None:
        self.seconds: list[float] = []
        self.steps: list[int] = []
        self.successes: list[float] = []


def _compare(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    batches: Sequence[Sequence[EncodedEdit]],
    options: argparse.Namespace,
) -> None:
    steps = recipe.training.max_steps
    fixed = recipe.training.model_copy(update={"stop_at": None})
    now = clock(alone=options.threads == 1)
    trained: list[TrainedBlock] = []

    def ours(k: int, training: TrainingSection) -> Sequence[float]:
        trained[:] = [_ours(base, tuner, recipe, batches[k], training)]
        return trained[0].losses

    own_success = lambda k: _success_of(base, tuner, trained[0], batches[k])  # noqa: E731
    thresholds = options.stop_at or [recipe.training.stop_at or 0.8]
    ways = {
        "published procedure": Way(
            lambda k: published.train(k, batches[k], steps), lambda k: published.edit_success(k, batches[k])
        ),
        "melo, as many steps": Way(lambda k: ours(k, fixed), own_success),
    }
    for least in thresholds:
        stopping = fixed.model_copy(update={"stop_at": least})
        ways[f"melo, stopping at {least}"] = Way(
            lambda k, stopping=stopping: ours(k, stopping),
            own_success,
        )
    for _ in range(options.repeats):
        published = Published(base, recipe, tuner, options.all_blocks)
        for k in range(len(batches)):
            for way in ways.values():
                started = now()
                losses = way.train(k)
                way.seconds.append(now() - started)
                way.steps.append(len(losses))
                way.successes.append(way.success(k))
    edits_a_block = statistics.mean(len(batch) for batch in batches)
    slow = ways["published procedure"].seconds
    print("| | seconds a block | edits/s | times | steps | ES |\n| --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for name, way in ways.items():
        middle = statistics.median(way.seconds)
        times = statistics.median(theirs / own for theirs, own in zip(slow, way.seconds, strict=True))
        print(  # noqa: T201
            f"| {name} | {middle:.2f} | {edits_a_block / middle:.2f} | {times:.1f} "
            f"| {statistics.mean(way.steps):.0f} | {statistics.mean(way.successes):.2f} |"
        )


def _in_flight(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    edits: Sequence[EncodedEdit],
    options: argparse.Namespace,
) -> None:
    """All edits, so many blocks in one pass at a time, against the published procedure's one by one."""
    now = clock(alone=options.threads == 1)
    lora, steps = recipe.lora, recipe.training.max_steps
    own = _split(edits, recipe.training.batch_size)
    theirs = _split(edits, options.published_size or recipe.training.batch_size)

    def published() -> Callable[[], Iterator[float]]:
        run = Published(base, recipe, tuner, max(options.all_blocks, len(theirs)))
        for k, batch in enumerate(theirs):
            run.train(k, batch, steps)
        return lambda: (run.edit_success(k, batch) for k, batch in enumerate(theirs))

    def ours(count: int, least: float | None) -> Callable[[], Iterator[float]]:
        training = recipe.training.model_copy(update={"blocks_in_flight": count, "stop_at": least})
        trained = train_blocks(base, tuner, own, training, rank=lora.rank, scale=lora.scale, seed=recipe.seed)
        return lambda: (_success_of(base, tuner, *each) for each in zip(trained, own, strict=True))

    ways: dict[str, Callable[[], Callable[[], Iterator[float]]]] = {
        f"published procedure, {len(theirs)} blocks": published
    }
    ways |= {
        f"melo, {len(own)} blocks, {count} in flight, stopping at {least}": partial(ours, count, least)
        for least in options.stop_at or [recipe.training.stop_at]
        for count in options.in_flight
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    successes: dict[str, float] = {}
    for _ in range(options.repeats):
        for name, train in ways.items():
            started = now()
            success = train()
            seconds[name].append(now() - started)
            successes[name] = statistics.mean(success())
    slow = next(iter(seconds.values()))
    print("| | seconds an edit | times | ES |\n| --- | --- | --- | --- |")  # noqa: T201
    for name, taken in seconds.items():
        times = statistics.median(before / after for before, after in zip(slow, taken, strict=True))
        middle = statistics.median(taken) / len(edits)
        print(f"| {name} | {middle:.3f} | {times:.1f} | {successes[name]:.2f} |")  # noqa: T201


def _split(edits: Sequence[EncodedEdit], size: int) -> list[Sequence[EncodedEdit]]:
    return [edits[start : start + size] for start in range(0, len(edits), size)]


def _success_of(
    base: BaseModel, tuner: DynamicLoraModel, block: TrainedBlock, edits: Sequence[EncodedEdit]
) -> float:
    banks = {
        name: SliceBank(torch.tensor(piece.A)[None], torch.tensor(piece.B)[None], torch.tensor([piece.scale]))
        for name, piece in block.slices.items()
    }
    with tuner.using(banks, [0] * len(edits)):
        return _edit_success(base, edits)


@torch.no_grad()
def _edit_success(base: BaseModel, edits: Sequence[EncodedEdit]) -> float:
    batch = target_batch(base, edits)
    right = (target_logits(base, batch).argmax(-1) == batch.targets) | (batch.targets == IGNORED)
    return right.all(-1).double().mean().item()


def _as_long(edit: EncodedEdit, length: int) -> EncodedEdit:
    """The edit with its prompt's own tokens over and over, up to a length."""
    ids = edit.prompt_ids * (length // len(edit.prompt_ids) + 1)
    return replace(edit, prompt_ids=ids[:length])


def _count(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    edits: Sequence[EncodedEdit],
    options: argparse.Namespace,
) -> None:
    """Operations, bytes and time of a step, part by part: the first step's forward, then the others'."""
    published = Published(base, recipe, tuner, options.all_blocks)
    few = recipe.training.model_copy(update={"max_steps": 4, "stop_at": None})

    def ours(parts: Parts) -> None:
        with _parts_of_melo(parts):
            _ours(base, tuner, recipe, edits, few)

    ways = {"published": lambda parts: published.train(0, edits, 4, parts), "melo": ours}
    now = clock(alone=options.threads == 1)
    rate, copied = product_rate(now), copy_rate(now)
    print(  # noqa: T201
        f"\nMeasured: {rate / 1e9:.0f} GFLOP/s (matrix product of 1,024), {copied / 1e9:.1f} GB/s (copy).\n\n"
        "| | part of a step | GFLOP | GB read and written | ms | of the product rate | of the copy rate |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for way, train in ways.items():
        operations, moved = operations_of(train), bytes_of(train)
        times = Parts(now)
        for _ in range(options.repeats):
            train(times)
        for part in sorted(times.taken, key=_PARTS.index):
            seconds = times.taken[part]
            flops, carried = operations[part][-1], moved[part][-1]
            middle = statistics.median(seconds)
            print(  # noqa: T201
                f"| {way} | {part} | {flops / 1e9:.3f} | {carried / 1e9:.3f} | {middle * 1e3:.1f} "
                f"| {flops / middle / rate:.0%} | {carried / middle / copied:.0%} |"
            )


@contextmanager
def _parts_of_melo(parts: Parts) -> Iterator[None]:
    """Measure the parts of melo's training inside the block."""
    stack = melo_training._ParameterStack
    losses, take_gradients, step = stack.losses, stack.take_gradients, stack.step
    began: set[int] = set()

    def forward(self: Any, *arguments: Any) -> Any:
        name = "forward" if id(self) in began else "forward, once"
        began.add(id(self))
        with parts.part(name):
            return losses(self, *arguments)

    def backward(self: Any, *arguments: Any) -> None:
        with parts.part("backward"):
            take_gradients(self, *arguments)

    def optimizer(self: Any, *arguments: Any) -> None:
        with parts.part("optimizer"):
            step(self, *arguments)

    with (
        patch.object(stack, "losses", forward),
        patch.object(stack, "take_gradients", backward),
        patch.object(stack, "step", optimizer),
    ):
        yield


def _ours(
    base: BaseModel,
    tuner: DynamicLoraModel,
    recipe: Recipe,
    edits: Sequence[EncodedEdit],
    training: TrainingSection,
) -> TrainedBlock:
    lora = recipe.lora
    return train_block(base, tuner, edits, training, rank=lora.rank, scale=lora.scale, seed=recipe.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], help="as of melo edit")
    parser.add_argument(
        "--stop-at",
        type=float,
        action="append",
        help="least probability of a target token; the recipe's own if not given",
    )
    parser.add_argument("--length", type=int, help="tokens a prompt, in place of its own length")
    parser.add_argument("--blocks", type=int, default=3, help="blocks to train")
    parser.add_argument(
        "--in-flight", type=int, nargs="+", help="compare so many blocks in one pass, in place of all else"
    )
    parser.add_argument(
        "--published-size", type=int, help="edits in a block of the published procedure, beside --in-flight"
    )
    parser.add_argument("--all-blocks", type=int, default=20, help="blocks in the published run's matrix")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
