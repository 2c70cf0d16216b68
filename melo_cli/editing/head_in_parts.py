"""The loss of target tokens over a vocabulary that is taken part by part: logits are never all there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.editing.frozen_prefix import replaced_forward
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.runtime.scoring import PickedTargets

# Tokens of the vocabulary at a time: what is made of them stays in the cache of a CPU.
_PART = {"cpu": 4096}
_PART_ELSEWHERE = 16384


def has_plain_head(base: BaseModel) -> bool:
    """Whether logits come from one linear module over the vocabulary; what is done to them behind it does not
    show here."""
    return base.kind is not ModelKind.CLASSIFIER and isinstance(base.model.get_output_embeddings(), nn.Linear)


def losses_in_parts(base: BaseModel, batch: PickedTargets) -> Tensor:
    """Cross-entropy of each target token, as `target_losses`.

    The gradient is taken on the way, so a part of the output embeddings is read once for both. That takes
    two thirds of the time, and a small share of the memory, of logits for 200 tokens of 49,152 that are kept
    for the backward pass.

    Args:
        base: a base model with a plain head, under whatever blocks are in force.
        batch: the edits.

    Returns:
        `[N]` float32, row by row, nats.
    """
    head = base.model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    states: list[Tensor] = []

    def catch(given: Tensor) -> Tensor:
        states.append(given.flatten(0, 1).index_select(0, batch.flat_positions))
        return states[0][None, :, :1]  # instead of logits: something that depends on the same states

    with replaced_forward(head, catch):
        base.model(**batch.inputs)
    losses: Tensor = _Losses.apply(states[0], head.weight, head.bias, batch.tokens)  # type: ignore[no-untyped-call]
    return losses


class _Losses(torch.autograd.Function):
    """Softmax over parts, whose sums are scaled when a larger logit comes (online softmax, arXiv 1805.02867).

    With respect to a state the loss has the gradient `sum of probability * row of W - the target's row`.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
        largest = states.new_full((len(states), 1), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(largest)
        expected = states.new_zeros(states.shape, dtype=torch.float32)
        step = _PART.get(states.device.type, _PART_ELSEWHERE)
        for start in range(0, len(weight), step):
            rows = weight[start : start + step]
            logits = torch.nn.functional.linear(states, rows, _part_of(bias, start, step)).float()
            before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
            shrunk = (before - largest).exp_()
            weights = logits.sub_(largest).exp_()
            total.mul_(shrunk).add_(weights.sum(-1, keepdim=True))
            if ctx.needs_input_grad[0]:
                _add_product(expected.mul_(shrunk), weights, rows)
        own = weight.index_select(0, tokens).float()
        logit = (states.float() * own).sum(-1)
        if bias is not None:
            logit = logit + bias.index_select(0, tokens).float()
        ctx.save_for_backward((expected / total - own).to(states.dtype))
        return (largest + total.log()).squeeze(-1) - logit

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].unsqueeze(-1).to(gradient.dtype), None, None, None


def _part_of(bias: Tensor | None, start: int, step: int) -> Tensor | None:
    return None if bias is None else bias[start : start + step]


def _add_product(total: Tensor, weights: Tensor, rows: Tensor) -> None:
    if rows.dtype == total.dtype:
        total.addmm_(weights, rows)
    else:
        total.add_(weights.to(rows.dtype) @ rows)
