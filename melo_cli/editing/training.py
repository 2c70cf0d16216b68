"""Trains blocks: each a pure function of base model, edits, settings and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from melo_cli.editing.block_reading import BlockReading
from melo_cli.editing.optimizers import Schedule
from melo_cli.editing.shortcuts import Shortcuts, shortcuts_for
from melo_cli.editing.token_tree import tree_batch
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED, EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.scoring import PickedTargets, target_batch
from melo_cli.tuner import DynamicLoraModel, SliceBank
from melo_store.projection import random_projection
from melo_store.quantization import Side, rounded
from melo_store.records import LoraSlice, Matrix, Vector

OnStep = Callable[[float], None]
_LEAST_LOSS = 1e-4
"""Nats of a token that is not to be said; one that is as good as certain has no gradient."""


@dataclass(frozen=True)
class TrainedBlock:
    """The result of training.

    Attributes:
        slices: target module -> `A [rank, in]`, `B [out, rank]` as they are stored, and the scale.
        losses: mean cross-entropy of the target tokens before each step, nats a token.
    """

    slices: dict[str, LoraSlice]
    losses: tuple[float, ...]


def train_block(
    base: BaseModel,
    tuner: DynamicLoraModel,
    edits: Sequence[EncodedEdit],
    training: TrainingSection,
    *,
    rank: int,
    scale: float,
    seed: int,
    frozen_a: bool = False,
    store_dtype: str = "float32",
    on_step: OnStep | None = None,
) -> TrainedBlock:
    """Train the block of a batch with the base frozen (MELO, Sec. 3.2: one block a batch, none shared).

    `A` starts uniform (Kaiming, as LoRA does) from `seed` alone, `B` at zero: untrained, it adds nothing.

    Args:
        base: the base model.
        tuner: wraps its target modules.
        edits: the edits of the batch and their variants.
        training: steps, optimizer and scheduler, and the probability to stop at.
        rank: rank of `A` and `B`.
        scale: `alpha / rank`.
        seed: seed of `A`.
        frozen_a: leave `A` as it starts.
        store_dtype: `float32`, `float16` or `int8`, what the trained numbers are rounded to at the end.
        on_step: called with the loss of each step, nats a token.

    Returns:
        The block.
    """
    (block,) = train_blocks(
        base,
        tuner,
        [edits],
        training,
        rank=rank,
        scale=scale,
        seed=seed,
        frozen_a=frozen_a,
        store_dtype=store_dtype,
        on_step=on_step,
    )
    return block


def train_blocks(
    base: BaseModel,
    tuner: DynamicLoraModel,
    batches: Sequence[Sequence[EncodedEdit]],
    training: TrainingSection,
    *,
    rank: int,
    scale: float,
    seed: int,
    frozen_a: bool = False,
    store_dtype: str = "float32",
    on_step: OnStep | None = None,
) -> list[TrainedBlock]:
    """Train a block for each batch, `training.blocks_in_flight` of them in one stacked pass.

    A block has its own rows, loss, optimizer and scheduler, and stops on its own, so it is the same as
    trained alone with `seed` (to float tolerance: the rows of its neighbours change its padding).

    Args:
        base: the base model.
        tuner: wraps its target modules.
        batches: the edits and variants of each block. What is not wanted is left out where texts are not read
            as trees: it would be a row of its own.
        training: steps, optimizer and scheduler, and the probability to stop at.
        rank: rank of `A` and `B`.
        scale: `alpha / rank`.
        seed: seed of `A`, the same for all blocks.
        frozen_a: leave `A` as it starts.
        store_dtype: `float32`, `float16` or `int8`, what the trained numbers are rounded to at the end.
        on_step: called at each step with the mean loss of the blocks that are trained in it, nats a token.

    Returns:
        The blocks, in the order of `batches`.
    """
    form = _Form(rank, scale, seed, frozen_a, store_dtype)
    started = [_BlockInTraining.start(tuner, edits, training, form) for edits in batches]
    shortcuts = shortcuts_for(base, tuner, batches[0]) if batches else None
    if shortcuts is not None and shortcuts.tree is None:
        for block in started:
            block.edits = [edit for edit in block.edits if edit.wanted]
    waiting, running = list(started), list[_BlockInTraining]()
    while shortcuts is not None and (waiting or running):
        room = training.blocks_in_flight - len(running)
        joining, waiting = waiting[:room], waiting[room:]
        if shortcuts.tree is not None and joining:
            readings = shortcuts.tree.read(base, [block.edits for block in joining])
            for block, reading in zip(joining, readings, strict=True):
                block.reading = reading
        running = _train_in_parallel(base, tuner, [*running, *joining], training, shortcuts, on_step)
    return [block.trained(tuner) for block in started]


@dataclass(frozen=True)
class _Form:
    """The form of a block: see `train_blocks`."""

    rank: int
    scale: float
    seed: int
    frozen_a: bool
    dtype: str

    def slice_of(self, A: Tensor, B: Tensor) -> LoraSlice:
        """What is stored of the parameters `A [1, rank, in]` and `B [1, out, rank]` of one module."""
        a, b = (each[0].float().cpu().contiguous().numpy() for each in (A, B))
        return LoraSlice(
            a if self.frozen_a else self._rounded(a, "A"),
            self._rounded(b, "B"),
            self.scale,
            self.seed if self.frozen_a else None,
            in_int8=self.dtype == "int8",
        )

    def _rounded(self, matrix: Vector, side: Side) -> Matrix:
        """One side of a slice as it is stored."""
        if self.dtype == "int8":
            return rounded(matrix, side)
        return matrix.astype(np.dtype(self.dtype))


@dataclass
class _BlockInTraining:
    """A block in training.

    Attributes:
        parameters: `A [1, rank, in]` and `B [1, out, rank]` of each target module in turn.
        reading: its edits as they are read once, while it is in training on a model that reads trees.
    """

    edits: Sequence[EncodedEdit]
    parameters: list[Tensor]
    form: _Form
    schedule: Schedule
    losses: list[float] = field(default_factory=list)
    reading: BlockReading | None = None

    @classmethod
    def start(
        cls,
        tuner: DynamicLoraModel,
        edits: Sequence[EncodedEdit],
        training: TrainingSection,
        form: _Form,
    ) -> _BlockInTraining:
        parameters = initial_parameters(tuner, rank=form.rank, seed=form.seed)
        trained = parameters[1::2] if form.frozen_a else parameters
        return cls(edits, parameters, form, Schedule(training, trained))

    def trained(self, tuner: DynamicLoraModel) -> TrainedBlock:
        pairs = zip(tuner.layers, self.parameters[::2], self.parameters[1::2], strict=True)
        slices = {name: self.form.slice_of(A, B) for name, A, B in pairs}
        return TrainedBlock(slices, tuple(self.losses))


def initial_parameters(tuner: DynamicLoraModel, *, rank: int, seed: int) -> list[Tensor]:
    """`A [1, rank, in]` and `B [1, out, rank]` of each target module in turn.

    Args:
        tuner: wraps the target modules.
        rank: rank of both matrices.
        seed: seed of `A`; the numbers are the same on every machine.

    Returns:
        float32 on the model's device.
    """
    parameters = []
    for name, layer in tuner.layers.items():
        A = torch.from_numpy(random_projection(seed, name, rank, layer.in_features))[None]
        parameters += [A.to(tuner.device), torch.zeros((1, layer.out_features, rank), device=tuner.device)]
    return parameters


def _train_in_parallel(
    base: BaseModel,
    tuner: DynamicLoraModel,
    blocks: list[_BlockInTraining],
    training: TrainingSection,
    shortcuts: Shortcuts,
    on_step: OnStep | None,
) -> list[_BlockInTraining]:
    """Train `blocks` side by side until some of them are done, and give back those that are not.

    Where what they read is at hand, the others go on at once without the first that is done; else a new stack
    has to read it again, and is worth that when half of them are done.
    """
    stack = _ParameterStack(base, tuner, blocks)
    alive = list(range(len(blocks)))
    enough = len(blocks) - 1 if stack.readings else len(blocks) // 2
    with tuner.using(stack.banks, stack.rows), shortcuts.applied(base, stack.readings):
        while len(alive) > enough:
            losses, means, worst = stack.losses(base, shortcuts)
            on_host = _HostCopy(torch.stack([means, worst.neg().exp()]))
            ahead = _runs_ahead(means)
            if ahead:  # it takes the gradients while the host waits for the forward pass alone
                stack.take_gradients(losses)
            now, least = on_host.read()
            if training.stop_at is not None:
                alive = [k for k in alive if not (blocks[k].losses and least[k] >= training.stop_at)]
                if not alive:
                    break
            if not ahead:
                stack.take_gradients(losses)
            stack.step(now, alive)
            for k in alive:
                blocks[k].losses.append(now[k])
            if on_step is not None:
                on_step(math.fsum(now[k] for k in alive) / len(alive))
            alive = [k for k in alive if len(blocks[k].losses) < training.max_steps]
    for k in set(range(len(blocks))).difference(alive):
        blocks[k].reading = None
    return [blocks[k] for k in alive]


class _HostCopy:
    """Figures on their way to the host; the device goes on with what comes behind them."""

    def __init__(self, figures: Tensor) -> None:
        self._figures = figures.to("cpu", non_blocking=figures.is_cuda)
        self._arrival = torch.cuda.Event() if figures.is_cuda else None
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> list[list[float]]:
        """The figures, once they are there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        figures: list[list[float]] = self._figures.tolist()
        return figures


def _runs_ahead(tensor: Tensor) -> bool:
    """Whether the device works on while the host reads: then gradients nobody may need cost no time."""
    return tensor.is_cuda


class _ParameterStack:
    """The parameters and edits of `K` blocks as one batch; each block sees its own part of both.

    Attributes:
        banks: target module -> bank of the `K` blocks, what the gradients are taken of.
        rows: each row's block; every block has as many rows.
        readings: what each block has read, if the model reads trees.
    """

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, blocks: Sequence[_BlockInTraining]) -> None:
        self._blocks = blocks
        self._stacked = [
            _stacked(parts) for parts in zip(*(block.parameters for block in blocks), strict=True)
        ]
        for i, whole in enumerate(self._stacked):
            for k, block in enumerate(blocks):
                block.parameters[i].data = whole.detach()[k : k + 1]
        if blocks[0].form.frozen_a:
            for A in self._stacked[::2]:
                A.requires_grad_(False)
        scale = torch.tensor([block.form.scale for block in blocks], device=tuner.device)
        matrices = iter(self._stacked)
        self.banks = {name: SliceBank(next(matrices), next(matrices), scale) for name in tuner.layers}
        self.readings = [block.reading for block in blocks if block.reading is not None]
        if self.readings:
            self._batch, self.rows, owners, wanted = _as_trees(base, self.readings)
        else:
            self._batch, self.rows, owners = _as_rows(base, [block.edits for block in blocks])
            wanted = torch.ones_like(owners, dtype=torch.bool)
        whose = owners == torch.arange(len(blocks), device=tuner.device).unsqueeze(1)
        self._own, self._unwanted = whose & wanted, (~wanted).nonzero()[:, 0]
        self._shares = self._own / self._own.sum(-1, keepdim=True)
        unwanted = whose[:, self._unwanted]
        self._unwanted_shares = unwanted / unwanted.sum(-1, keepdim=True).clamp(min=1)

    def losses(self, base: BaseModel, shortcuts: Shortcuts) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each block, and the mean and largest loss of its target tokens: `[K]` float32, nats.

        What is not to be said counts by `-log(1 - p)`, its mean as much as that of the target tokens.
        """
        token_losses = shortcuts.losses(base, self._batch)
        means, worst = (
            self._shares @ token_losses,
            token_losses.detach().where(self._own, -torch.inf).amax(-1),
        )
        said = token_losses[self._unwanted].clamp(min=_LEAST_LOSS)
        losses = means + self._unwanted_shares @ -torch.log(-torch.expm1(-said))
        return losses, means.detach(), worst

    def take_gradients(self, losses: Tensor) -> None:
        """The gradient of each block's own loss."""
        for whole in self._stacked:
            whole.grad = None
        losses.sum().backward()

    def step(self, losses: Sequence[float], alive: Sequence[int]) -> None:
        """Move the blocks `alive`, each by its own gradient; the others stay where they are."""
        for k in alive:
            block = self._blocks[k]
            for parameter, whole in zip(block.parameters, self._stacked, strict=True):
                parameter.grad = whole.grad[k : k + 1] if whole.grad is not None else None
            block.schedule.step(losses[k])


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """`[1, ...]` of each block as one leaf `[K, ...]`.

    `B`, the longer one of its two sides first, is laid out transposed: so are its gradients cheap to take.
    """
    return torch.cat([part.transpose(1, 2) for part in parts]).transpose(1, 2).requires_grad_()


def _as_trees(
    base: BaseModel, readings: Sequence[BlockReading]
) -> tuple[PickedTargets, list[int], Tensor, Tensor]:
    """A batch with a row for each block, the block of each row, that of each token that is predicted, and
    whether it is wanted."""
    batch = tree_batch(base, [reading.tree for reading in readings])
    counts = torch.tensor([len(reading.tree.tokens) for reading in readings])
    owners = torch.arange(len(readings)).repeat_interleave(counts)
    wanted = torch.cat([reading.tree.wanted for reading in readings])
    device = batch.tokens.device
    return batch, list(range(len(readings))), owners.to(device), wanted.to(device)


def _as_rows(
    base: BaseModel, blocks: Sequence[Sequence[EncodedEdit]]
) -> tuple[PickedTargets, list[int], Tensor]:
    """A batch with a row for each edit, the block of each row, and that of each target token that counts.

    Blocks with fewer edits are filled up with edits of theirs, which do not count.
    """
    height = max(len(edits) for edits in blocks)
    rows = [k for k in range(len(blocks)) for _ in range(height)]
    batch = target_batch(base, [edits[i % len(edits)] for edits in blocks for i in range(height)])
    counted = [k if i < len(edits) else -1 for k, edits in enumerate(blocks) for i in range(height)]
    tokens_a_row = (batch.targets != IGNORED).sum(-1)
    return batch, rows, torch.tensor(counted, device=tokens_a_row.device).repeat_interleave(tokens_a_row)
