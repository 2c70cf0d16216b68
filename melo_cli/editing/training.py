"""Trains one block: a pure function of base model, edits, settings and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melo_cli.base_model import BaseModel
from melo_cli.editing.optimizers import Schedule
from melo_cli.editing.tail import fixed_part_run_once
from melo_cli.encoding import EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.scoring import target_batch, target_losses
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
    schedule = Schedule(training, _parameters(banks))
    batch = target_batch(base, edits)
    losses: list[float] = []
    with tuner.using(banks, [0] * len(edits)), fixed_part_run_once(base.model):
        for _ in range(training.max_steps):
            token_losses = target_losses(base, batch)
            if losses and _solved(token_losses, training.stop_at):
                break
            loss = token_losses.mean()
            schedule.step(loss)
            losses.append(loss.item())
            if on_step is not None:
                on_step(losses[-1])
    return TrainedBlock({name: _slice(bank) for name, bank in banks.items()}, tuple(losses))


def _solved(token_losses: Tensor, stop_at: float | None) -> bool:
    """Whether the least likely target token is likely enough."""
    return stop_at is not None and math.exp(-token_losses.max().item()) >= stop_at


def initial_banks(tuner: DynamicLoraModel, *, rank: int, scale: float, seed: int) -> dict[str, SliceBank]:
    """A bank of one untrained block for every target module, its parameters float32 on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    banks = {}
    for name, layer in tuner.layers.items():
        # kaiming_uniform_(a=sqrt(5)) over fan-in, drawn on the CPU: the same numbers on every device.
        bound = layer.in_features**-0.5
        A = (torch.rand((1, rank, layer.in_features), generator=generator) * 2 - 1) * bound
        # Held transposed: so are the gradients of B that are cheap to take.
        B = torch.zeros((1, rank, layer.out_features), device=tuner.device).transpose(1, 2)
        banks[name] = SliceBank(
            A.to(tuner.device).requires_grad_(),
            B.requires_grad_(),
            torch.full((1,), scale, device=tuner.device),
        )
    return banks


def _parameters(banks: Mapping[str, SliceBank]) -> list[Tensor]:
    return [tensor for bank in banks.values() for tensor in (bank.A, bank.B)]


def _slice(bank: SliceBank) -> LoraSlice:
    def array(tensor: Tensor) -> Tensor:
        return tensor.detach()[0].float().cpu().contiguous()

    return LoraSlice(A=array(bank.A).numpy(), B=array(bank.B).numpy(), scale=float(bank.scale[0]))
