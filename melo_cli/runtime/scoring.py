"""Logits at the target positions of a batch of edits, for training and for teacher-forced scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import IGNORED, EncodedEdit, pad_prompts, padded_rows


@dataclass(frozen=True)
class PickedTargets:
    """A batch of edits as the model takes it, with the places of its targets.

    Attributes:
        inputs: keyword arguments of the model's forward.
        tokens: `[N]` int64, the tokens to be predicted, row by row.
        flat_positions: `[N]` int64, where the logits of each of them stand among those of the batch,
            flattened.
    """

    inputs: dict[str, Tensor | int]
    tokens: Tensor
    flat_positions: Tensor


@dataclass(frozen=True)
class TargetBatch(PickedTargets):
    """A batch of edits with one row for each.

    Attributes:
        targets: `[batch, T]` int64, the token to be predicted at each kept position, `IGNORED` elsewhere.
    """

    targets: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor | int], targets: Tensor, *, positions: int) -> TargetBatch:
        """A batch whose model gives logits at `positions` of each row.

        Args:
            inputs: keyword arguments of the model's forward.
            targets: `[batch, T]` int64, `IGNORED` where there is nothing to predict.
            positions: how many positions of a row have logits; the first `T` are those of `targets`.
        """
        rows, columns = (targets != IGNORED).nonzero(as_tuple=True)
        return cls({**inputs}, targets[rows, columns], rows * positions + columns, targets)


def target_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    """Pad a batch of edits so that every target lies within the positions whose logits are computed."""
    if base.kind is ModelKind.CLASSIFIER:
        return _classifier_batch(base, edits)
    if base.kind is ModelKind.SEQ2SEQ:
        return _seq2seq_batch(base, edits)
    return _causal_batch(base, edits)


def target_logits(base: BaseModel, batch: TargetBatch) -> Tensor:
    """Logits `[batch, T, vocabulary or classes]` float32, aligned with `batch.targets`."""
    logits: Tensor = base.model(**batch.inputs).logits
    if base.kind is ModelKind.CLASSIFIER:
        return logits.float().unsqueeze(1)
    if base.kind is ModelKind.CAUSAL:
        return logits[:, :-1].float()
    return logits.float()


def target_losses(base: BaseModel, batch: PickedTargets) -> Tensor:
    """Cross-entropy of each target token; logits are computed at the targets' positions alone.

    Args:
        base: the base model, under whatever blocks are in force.
        batch: the edits.

    Returns:
        `[N]` float32, row by row, nats.
    """
    with _only_positions(base, batch.flat_positions):
        logits: Tensor = base.model(**batch.inputs).logits
    logits = logits.flatten(0, -2)
    if len(logits) != len(batch.flat_positions):
        logits = logits.index_select(0, batch.flat_positions)
    return torch.nn.functional.cross_entropy(logits.float(), batch.tokens, reduction="none")


def full_target_losses(base: BaseModel, batch: TargetBatch) -> Tensor:
    """Cross-entropy of each target token, from logits at all positions that `batch.targets` covers.

    Args:
        base: the base model, under whatever blocks are in force.
        batch: the edits.

    Returns:
        `[N]` float32, row by row, nats.
    """
    logits = target_logits(base, batch).flatten(0, 1)
    targets = batch.targets.flatten()
    known = targets != IGNORED
    return torch.nn.functional.cross_entropy(logits[known], targets[known], reduction="none")


@contextmanager
def _only_positions(base: BaseModel, flat_positions: Tensor) -> Iterator[None]:
    """Give the output embeddings `[1, N, d]`, the hidden states at `flat_positions`, not `[batch, positions,
    d]`."""
    head = base.model.get_output_embeddings()
    if head is None or base.kind is ModelKind.CLASSIFIER:
        yield
        return

    def pick(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return args[0].flatten(0, 1).index_select(0, flat_positions).unsqueeze(0), *args[1:]

    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


def _classifier_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    inputs = pad_prompts(base, [edit.prompt_ids for edit in edits])
    targets = torch.tensor([edit.target_ids for edit in edits], device=base.model.device)
    return TargetBatch.of(inputs, targets, positions=1)


def _seq2seq_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    targets = _pad_targets(base, edits)
    start = base.model.config.decoder_start_token_id
    shifted = torch.full_like(targets, base.special.pad)
    shifted[:, 0] = start
    shifted[:, 1:] = targets[:, :-1].masked_fill(targets[:, :-1] == IGNORED, base.special.pad)
    prompts = pad_prompts(base, [edit.prompt_ids for edit in edits])
    # A cache of keys and values has no use in a single pass.
    inputs: dict[str, Tensor | int] = {**prompts, "decoder_input_ids": shifted, "use_cache": False}
    return TargetBatch.of(inputs, targets, positions=targets.shape[1])


def _causal_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    # Padded on the left, every target ends where the batch ends: only the last positions need logits.
    whole = [(*edit.prompt_ids, *edit.target_ids) for edit in edits]
    inputs = pad_prompts(base, whole, side="left")
    targets = _pad_targets(base, edits, side="left")
    positions = targets.shape[1] + 1
    return TargetBatch.of(
        {**inputs, "logits_to_keep": positions, "use_cache": False}, targets, positions=positions
    )


def _pad_targets(base: BaseModel, edits: Sequence[EncodedEdit], side: str = "right") -> Tensor:
    return padded_rows([edit.target_ids for edit in edits], IGNORED, side).to(base.model.device)
