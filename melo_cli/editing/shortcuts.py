"""Shortcuts that save work in training; each is used only on a model on which a check shows the same
results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from melo_cli.editing.block_reading import BlockReading, FrozenPart
from melo_cli.editing.frozen_prefix import frozen_prefix_run_once
from melo_cli.editing.fused_activations import fused_activations
from melo_cli.editing.head_in_parts import has_plain_head, losses_in_parts
from melo_cli.editing.last_block import last_block_where_read
from melo_cli.editing.token_tree import TokenTree, shared_beginning, tree_batch
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.scoring import (
    PickedTargets,
    TargetBatch,
    full_target_losses,
    target_batch,
    target_losses,
)
from melo_cli.tuner import DynamicLoraModel, SliceBank

_ROWS = 2
_RANK = 2
# Allowed rounding error, as a share of the largest gradient.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_ROUNDING = 0.1
# Exceptions that a module may raise when a shortcut does not fit it.
_BREAKS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)


# Names in a config for what lets a token see only some of those before it, or count them otherwise.
_NARROWED = ("sliding_window", "window_size", "attention_chunk_size", "alibi")
_WHOLE_ATTENTION = {"full_attention", "global"}


@dataclass(frozen=True)
class Shortcuts:
    """The shortcuts in use.

    Attributes:
        fixed_part: what no trained parameter changes runs once.
        last_block: the last block runs where its states are read.
        few_logits: logits are made for the target's positions alone.
        head_in_parts: they are made part by part, and never all there.
        tree: the modules that run once for the prompts of a block, which are read as one tree of tokens; None
            where each is read in a row of its own.
    """

    fixed_part: bool
    last_block: bool
    few_logits: bool
    head_in_parts: bool = False
    tree: FrozenPart | None = None

    @contextmanager
    def applied(self, base: BaseModel, readings: Sequence[BlockReading] = ()) -> Iterator[None]:
        """Inside the `with` statement, passes over one batch use the shortcuts.

        Args:
            base: the base model.
            readings: the blocks of the batch, if they are read as trees; else the first pass is a full one.
        """
        with ExitStack() as undo:
            if self.few_logits:
                undo.enter_context(fused_activations(base.model))
            if self.last_block:
                undo.enter_context(last_block_where_read(base.model, _last_of(readings)))
            if self.tree is not None:
                undo.enter_context(self.tree.handed_out(readings))
            elif self.fixed_part:
                undo.enter_context(frozen_prefix_run_once(base.model))
            yield

    def losses(self, base: BaseModel, batch: PickedTargets) -> Tensor:
        """Cross-entropy of each target token.

        Args:
            base: the base model, with the blocks in training in force.
            batch: the edits.

        Returns:
            `[N]` float32, row by row, nats.
        """
        if self.head_in_parts:
            return losses_in_parts(base, batch)
        if isinstance(batch, TargetBatch) and not self.few_logits:
            return full_target_losses(base, batch)
        return target_losses(base, batch)


_NONE = Shortcuts(fixed_part=False, last_block=False, few_logits=False)
_FEW_LOGITS = Shortcuts(fixed_part=False, last_block=False, few_logits=True)
_cache: WeakKeyDictionary[DynamicLoraModel, Shortcuts] = WeakKeyDictionary()


def shortcuts_for(base: BaseModel, tuner: DynamicLoraModel, edits: Sequence[EncodedEdit]) -> Shortcuts:
    """The shortcuts that a model allows with these targets: losses and gradients stay those of the full pass.

    The check runs once for each wrapped model, on the first of its edits; that of trees on one and its like.

    Args:
        base: the base model.
        tuner: wraps its target modules.
        edits: edits of one block; the first ones are used for the check.
    """
    if tuner not in _cache:
        pair = [edits[0], _branched_off(edits[0])] if sees_all_before(base) else edits[:_ROWS]
        check = _EquivalenceCheck(base, tuner, pair)
        ways = (*check.most_first(), _FEW_LOGITS)
        _cache[tuner] = next((each for each in ways if check.holds(each)), _NONE)
    return _cache[tuner]


def sees_all_before(base: BaseModel) -> bool:
    """Whether the model is a decoder in which each token sees all tokens before it, by the positions it is
    given."""
    config = base.model.config.get_text_config()
    layers = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),
    }
    return (
        base.kind is ModelKind.CAUSAL
        and base.takes_positions
        and layers <= _WHOLE_ATTENTION
        and not any(getattr(config, name, None) for name in _NARROWED)
    )


def _last_of(readings: Sequence[BlockReading]) -> tuple[int, int] | None:
    """How many positions of the readings' `tree_batch` are read, and how many there are."""
    trees = [reading.tree for reading in readings]
    return (max(tree.read for tree in trees), max(map(len, trees))) if trees else None


class _EquivalenceCheck:
    """Compares a pass with shortcuts with the full pass, on a block with random values."""

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, edits: Sequence[EncodedEdit]) -> None:
        self._base, self._tuner, self._edits = base, tuner, edits
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
        self._reference = self._passes(_NONE, target_batch(base, self._edits), 1)

    def most_first(self) -> Iterator[Shortcuts]:
        """The shortcuts to try, where the model runs what is fixed once."""
        trees = [self._frozen_part(), None]
        heads = [True, False] if has_plain_head(self._base) else [False]
        for tree, head_in_parts, last_block in product(trees, heads, (True, False)):
            yield Shortcuts(
                fixed_part=True,
                last_block=last_block,
                few_logits=True,
                head_in_parts=head_in_parts,
                tree=tree,
            )

    def _frozen_part(self) -> FrozenPart | None:
        """What runs once for a tree; None where the model does not let prompts be read as trees."""
        if not sees_all_before(self._base):
            return None
        tree = TokenTree.of(self._edits, shared_beginning(self._edits))
        try:
            with self._tuner.using(self._banks, [0]):
                return FrozenPart.of(self._base, tree_batch(self._base, [tree]))
        except _BREAKS:
            return None

    def holds(self, shortcuts: Shortcuts) -> bool:
        """Whether the second pass, the first that uses all shortcuts, has the results of the full pass."""
        try:
            shortened = self._shortened(shortcuts)
        except _BREAKS:
            return False
        rounding = _ROUNDING.get(self._base.model.dtype, _HALF_ROUNDING)
        return all(
            mine.shape == theirs.shape and _is_near(mine, theirs, rounding)
            for mine, theirs in zip(shortened, self._reference, strict=True)
        )

    def _shortened(self, shortcuts: Shortcuts) -> list[Tensor]:
        if shortcuts.tree is None:
            return self._passes(shortcuts, target_batch(self._base, self._edits), 2)
        readings = shortcuts.tree.read(self._base, [self._edits])
        batch = tree_batch(self._base, [reading.tree for reading in readings])
        return self._passes(shortcuts, batch, 2, readings)

    def _passes(
        self, shortcuts: Shortcuts, batch: PickedTargets, count: int, readings: Sequence[BlockReading] = ()
    ) -> list[Tensor]:
        """Losses and gradients of the last of so many passes."""
        leaves = [leaf for bank in self._banks.values() for leaf in (bank.A, bank.B)]
        rows = [0] * (len(readings) or len(self._edits))
        with self._tuner.using(self._banks, rows), shortcuts.applied(self._base, readings):
            for _ in range(count):
                losses = shortcuts.losses(self._base, batch)
                gradients = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return [losses.detach(), *gradients]

    def _leaf(self, shape: tuple[int, ...], width: int, drawn: torch.Generator) -> Tensor:
        values = torch.randn(shape, generator=drawn) * width**-0.5
        leaf: Tensor = values.to(self._tuner.device).requires_grad_()
        return leaf


def _is_near(mine: Tensor, theirs: Tensor, rounding: float) -> bool:
    return bool((mine - theirs).abs().max() <= rounding * theirs.abs().max())


def _branched_off(edit: EncodedEdit) -> EncodedEdit:
    """The edit with another token amid its prompt: a model that mixes texts side by side shows."""
    ids = list(edit.prompt_ids)
    middle = len(ids) // 2
    ids[middle] = ids[middle] - 1 if ids[middle] else 1
    return replace(edit, prompt_ids=tuple(ids))
