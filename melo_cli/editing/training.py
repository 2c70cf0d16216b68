"""Trains one block: a pure function of base model, edits, settings and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melo_cli.base_model import BaseModel
from melo_cli.editing.optimizers import Schedule
from melo_cli.encoding import EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.scoring import least_probability, target_batch, target_logits, target_loss
from melo_cli.tuner import DynamicLoraModel, SliceBank
from store.records import LoraSlice


@dataclass(frozen=True)
class TrainedBlock:
    """What training gave.

    Attributes:
        slices: target module -> `A [rank, in]`, `B [out, rank]` float32 and the scale.
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
    on_step: Callable[[float], None] | None = None,
) -> TrainedBlock:
    """Train the block of a batch with the base frozen (MELO, Sec. 3.2: one block a batch, none shared).

    `A` starts uniform (Kaiming, as LoRA does) from `seed` alone, `B` at zero: untrained, it adds nothing.

    Args:
        on_step: told the loss before each step.
    """
    banks = initial_banks(tuner, rank=rank, scale=scale, seed=seed)
    parameters = [tensor for bank in banks.values() for tensor in (bank.A, bank.B)]
    schedule = Schedule(training, parameters)
    batch = target_batch(base, edits)
    losses: list[float] = []
    with tuner.using(banks, [0] * len(edits)):
        for _ in range(training.max_steps):
            logits = target_logits(base, batch)
            if losses and _solved(logits, batch.targets, training.stop_at):
                break
            loss = target_loss(logits, batch.targets)
            schedule.step(loss)
            losses.append(loss.item())
            if on_step is not None:
                on_step(losses[-1])
    return TrainedBlock({name: _slice(bank) for name, bank in banks.items()}, tuple(losses))


def _solved(logits: Tensor, targets: Tensor, stop_at: float | None) -> bool:
    return stop_at is not None and least_probability(logits, targets) >= stop_at


def initial_banks(tuner: DynamicLoraModel, *, rank: int, scale: float, seed: int) -> dict[str, SliceBank]:
    """A bank of one untrained block for every target module, its parameters float32 on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    banks = {}
    for name, layer in tuner.layers.items():
        # kaiming_uniform_(a=sqrt(5)) over fan-in, drawn on the CPU: the same numbers on every device.
        bound = layer.in_features**-0.5
        A = (torch.rand((1, rank, layer.in_features), generator=generator) * 2 - 1) * bound
        banks[name] = SliceBank(
            A.to(tuner.device).requires_grad_(),
            torch.zeros((1, layer.out_features, rank), device=tuner.device, requires_grad=True),
            torch.full((1,), scale, device=tuner.device),
        )
    return banks


def _slice(bank: SliceBank) -> LoraSlice:
    def array(tensor: Tensor) -> Tensor:
        return tensor.detach()[0].float().cpu().contiguous()

    return LoraSlice(A=array(bank.A).numpy(), B=array(bank.B).numpy(), scale=float(bank.scale[0]))
