"""Shortcuts that save work in training; each is used only on a model on which a check shows the same
results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from melo_cli.editing.frozen_prefix import frozen_prefix_run_once
from melo_cli.editing.fused_activations import fused_activations
from melo_cli.editing.last_block import last_block_where_read
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.scoring import TargetBatch, full_target_losses, target_batch, target_losses
from melo_cli.tuner import DynamicLoraModel, SliceBank

_ROWS = 2
_RANK = 2
# Allowed rounding error, as a share of the largest gradient.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_ROUNDING = 0.1
# Exceptions that a module may raise when a shortcut does not fit it.
_BREAKS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)


@dataclass(frozen=True)
class Shortcuts:
    """The shortcuts in use.

    Attributes:
        fixed_part: what no trained parameter changes runs once.
        last_block: the last block runs where its states are read.
        few_logits: logits are made for the target's positions alone.
    """

    fixed_part: bool
    last_block: bool
    few_logits: bool

    @contextmanager
    def applied(self, base: BaseModel) -> Iterator[None]:
        """Inside the `with` statement, passes over one batch use the shortcuts; the first pass is a full
        one."""
        with ExitStack() as undo:
            if self.few_logits:
                undo.enter_context(fused_activations(base.model))
            if self.last_block:
                undo.enter_context(last_block_where_read(base.model))
            if self.fixed_part:
                undo.enter_context(frozen_prefix_run_once(base.model))
            yield

    def losses(self, base: BaseModel, batch: TargetBatch) -> Tensor:
        """Cross-entropy of each target token.

        Args:
            base: the base model, with the blocks in training in force.
            batch: the edits.

        Returns:
            `[N]` float32, row by row, nats.
        """
        return target_losses(base, batch) if self.few_logits else full_target_losses(base, batch)


_NONE = Shortcuts(fixed_part=False, last_block=False, few_logits=False)
_MOST_FIRST = (
    Shortcuts(fixed_part=True, last_block=True, few_logits=True),
    Shortcuts(fixed_part=True, last_block=False, few_logits=True),
    Shortcuts(fixed_part=False, last_block=False, few_logits=True),
)
_cache: WeakKeyDictionary[DynamicLoraModel, Shortcuts] = WeakKeyDictionary()


def shortcuts_for(base: BaseModel, tuner: DynamicLoraModel, edits: Sequence[EncodedEdit]) -> Shortcuts:
    """The shortcuts that a model allows with these targets: losses and gradients stay those of the full pass.

    The check runs once for each wrapped model, on the first of its edits.

    Args:
        base: the base model.
        tuner: wraps its target modules.
        edits: edits of one block; the first is used for the check.
    """
    if tuner not in _cache:
        check = _EquivalenceCheck(base, tuner, edits[:_ROWS])
        _cache[tuner] = next((each for each in _MOST_FIRST if check.holds(each)), _NONE)
    return _cache[tuner]


class _EquivalenceCheck:
    """Compares a pass with shortcuts with the full pass, on a block with random values."""

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, edits: Sequence[EncodedEdit]) -> None:
        self._base, self._tuner = base, tuner
        self._rows = [0] * len(edits)
        self._batch = target_batch(base, edits)
        drawn = torch.Generator().manual_seed(0)
        one = torch.ones(1, device=tuner.device)
        self._banks = {
            name: SliceBank(
                self._leaf((1, _RANK, layer.in_features), layer.in_features, drawn),
                self._leaf((1, layer.out_features, _RANK), layer.out_features, drawn),
                one,
            )
            for name, layer in tuner.layers.items()
        }
        self._reference = self._passes(_NONE, 1)

    def holds(self, shortcuts: Shortcuts) -> bool:
        """Whether the second pass, the first that uses the shortcuts, has the results of the full pass."""
        try:
            shortened = self._passes(shortcuts, 2)
        except _BREAKS:
            return False
        rounding = _ROUNDING.get(self._base.model.dtype, _HALF_ROUNDING)
        return all(
            mine.shape == theirs.shape and bool((mine - theirs).abs().max() <= rounding * theirs.abs().max())
            for mine, theirs in zip(shortened, self._reference, strict=True)
        )

    def _passes(self, shortcuts: Shortcuts, count: int) -> list[Tensor]:
        """Losses and gradients of the last of so many passes."""
        leaves = [leaf for bank in self._banks.values() for leaf in (bank.A, bank.B)]
        with self._tuner.using(self._banks, self._rows), shortcuts.applied(self._base):
            for _ in range(count):
                losses = shortcuts.losses(self._base, self._batch)
                gradients = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return [losses.detach(), *gradients]

    def _leaf(self, shape: tuple[int, ...], width: int, drawn: torch.Generator) -> Tensor:
        values = torch.randn(shape, generator=drawn) * width**-0.5
        leaf: Tensor = values.to(self._tuner.device).requires_grad_()
        return leaf
