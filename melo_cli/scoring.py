"""Logits at the target positions of a batch of edits, for training and for teacher-forced scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melo_cli.base_model import BaseModel, ModelKind
from melo_cli.encoding import IGNORED, EncodedEdit, pad_prompts


@dataclass(frozen=True)
class TargetBatch:
    """A batch of edits as the model takes it.

    Attributes:
        inputs: keyword arguments of the model's forward.
        targets: `[batch, T]` int64, the token to be predicted at each kept position, `IGNORED` elsewhere.
    """

    inputs: dict[str, Tensor | int]
    targets: Tensor


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


def target_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the target tokens of the batch (nats a token); prompts do not count."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def least_probability(logits: Tensor, targets: Tensor) -> float:
    """The lowest probability that the model gives any target token of the batch."""
    losses = torch.nn.functional.cross_entropy(
        logits.detach().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return math.exp(-float(losses.max()))


def _classifier_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    inputs = pad_prompts(base, [edit.prompt_ids for edit in edits])
    targets = torch.tensor([edit.target_ids for edit in edits], device=base.model.device)
    return TargetBatch({**inputs}, targets)


def _seq2seq_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    targets = _pad_targets(base, edits)
    start = base.model.config.decoder_start_token_id
    shifted = torch.full_like(targets, base.tokenizer.pad_token_id)
    shifted[:, 0] = start
    shifted[:, 1:] = targets[:, :-1].masked_fill(targets[:, :-1] == IGNORED, base.tokenizer.pad_token_id)
    inputs = pad_prompts(base, [edit.prompt_ids for edit in edits])
    return TargetBatch({**inputs, "decoder_input_ids": shifted}, targets)


def _causal_batch(base: BaseModel, edits: Sequence[EncodedEdit]) -> TargetBatch:
    # Padded on the left, every target ends where the batch ends: only the last positions need logits.
    whole = [(*edit.prompt_ids, *edit.target_ids) for edit in edits]
    inputs = pad_prompts(base, whole, side="left")
    targets = _pad_targets(base, edits, side="left")
    return TargetBatch({**inputs, "logits_to_keep": targets.shape[1] + 1, "use_cache": False}, targets)


def _pad_targets(base: BaseModel, edits: Sequence[EncodedEdit], side: str = "right") -> Tensor:
    length = max(len(edit.target_ids) for edit in edits)
    targets = torch.full((len(edits), length), IGNORED, dtype=torch.long)
    for row, edit in enumerate(edits):
        start = length - len(edit.target_ids) if side == "left" else 0
        targets[row, start : start + len(edit.target_ids)] = torch.tensor(edit.target_ids)
    return targets.to(base.model.device)
