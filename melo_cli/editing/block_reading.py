"""Reads the prompts of a block once: runs the frozen part of the model over its tree of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from melo_cli.editing.frozen_prefix import FirstPass, hand_out, replaced_forward
from melo_cli.editing.token_tree import TokenTree, shared_beginning
from melo_cli.models.architecture import names_of_blocks
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.scoring import PickedTargets

_Outputs = Mapping[nn.Module, Any]


class _AllRead(Exception):  # noqa: N818  (not an error: it ends the forward pass at the last frozen module)
    pass


@dataclass(frozen=True)
class BlockReading:
    """The prompts and targets of one block, read.

    Attributes:
        tree: their tokens.
        outputs: what each module of the frozen part gives for its nodes, `[1, n, ...]`.
    """

    tree: TokenTree
    outputs: _Outputs


@dataclass(frozen=True)
class FrozenPart:
    """The modules that run before every trained parameter, in any architecture.

    Attributes:
        kept: those whose output something else reads, in the order of running.
        passed_over: blocks whose output the next block alone reads, each with the last one of its stack that
            is kept.
    """

    kept: Sequence[nn.Module]
    passed_over: Mapping[nn.Module, nn.Module]

    @classmethod
    def of(cls, base: BaseModel, batch: PickedTargets) -> FrozenPart:
        """Find them by an ordinary pass, under blocks in force whose gradients are taken.

        Args:
            base: the base model.
            batch: trees of tokens; a module whose output has not a state for each node is left out.
        """
        first = FirstPass()
        hooks = [module.register_forward_hook(first.see, with_kwargs=True) for module in base.model.modules()]
        try:
            base.model(**batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        size = batch.inputs["input_ids"].shape  # type: ignore[union-attr]
        fixed = [module for module, output in first.fixed() if _is_by_position(output, size)]
        passed_over: dict[nn.Module, nn.Module] = {}
        for names in names_of_blocks(base.model):
            blocks = list(takewhile(lambda block: block in fixed, map(base.model.get_submodule, names)))
            passed_over |= dict.fromkeys(blocks[:-1], blocks[-1]) if blocks else {}
        return cls([module for module in fixed if module not in passed_over], passed_over)

    @torch.no_grad()
    def read(self, base: BaseModel, blocks: Sequence[Sequence[EncodedEdit]]) -> list[BlockReading]:
        """Read the prompts and targets of some blocks; the beginning of all of them is read once.

        Args:
            base: the base model.
            blocks: the edits and variants of each block.
        """
        shared = shared_beginning([edit for edits in blocks for edit in edits])
        trees = [TokenTree.of(edits, shared) for edits in blocks]
        beginning = DynamicCache()
        outputs = self._outputs(base, trees[0], 0, shared, beginning) if shared else {}
        readings = []
        for tree in trees:
            own = self._outputs(base, tree, shared, len(tree), _copied(beginning))
            if shared:
                own = {module: _joined([outputs[module], own[module]], _end_to_end) for module in own}
            readings.append(BlockReading(tree, own))
        return readings

    def _outputs(
        self, base: BaseModel, tree: TokenTree, start: int, stop: int, cache: DynamicCache
    ) -> dict[nn.Module, Any]:
        """What the kept modules give for nodes `start` to `stop`; keys and values before are in the cache."""
        outputs: dict[nn.Module, Any] = {}

        def keep(module: nn.Module, _args: Any, output: Any) -> None:
            outputs[module] = output
            if len(outputs) == len(self.kept):
                raise _AllRead

        hooks = [module.register_forward_hook(keep) for module in self.kept]
        try:
            base.model(**tree.part(base, start, stop), past_key_values=cache, use_cache=True)
        except _AllRead:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return outputs

    @contextmanager
    def handed_out(self, readings: Sequence[BlockReading]) -> Iterator[None]:
        """Inside the block, passes over the readings' `tree_batch` run only what training changes."""
        width = max(len(reading.tree) for reading in readings)
        whole = {
            module: _joined([reading.outputs[module] for reading in readings], partial(_stacked, width))
            for module in self.kept
        }
        whole |= {module: whole[last] for module, last in self.passed_over.items()}
        with ExitStack() as undo:
            for module, output in whole.items():
                undo.enter_context(replaced_forward(module, partial(hand_out, output)))
            yield


def _is_by_position(output: Any, size: tuple[int, ...]) -> bool:
    """Whether an output is states `[rows, positions, ...]`, maybe several of them."""
    if isinstance(output, tuple):
        return any(part is not None for part in output) and all(
            part is None or _is_by_position(part, size) for part in output
        )
    return isinstance(output, Tensor) and output.dim() > 2 and output.shape[:2] == size


def _joined(outputs: Sequence[Any], join: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """Outputs of one module as one, tensor by tensor."""
    if isinstance(outputs[0], tuple):
        return tuple(_joined(parts, join) for parts in zip(*outputs, strict=True))
    return None if outputs[0] is None else join(outputs)


def _end_to_end(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1)


def _stacked(width: int, parts: Sequence[Tensor]) -> Tensor:
    """`[1, n, ...]` of each block as `[blocks, width, ...]`, filled up on the left."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].new_zeros(len(parts), width, *parts[0].shape[2:])
    for row, part in enumerate(parts):
        whole[row, width - part.shape[1] :] = part[0]
    return whole


def _copied(cache: DynamicCache) -> DynamicCache:
    """A cache to go on from; what is added to it leaves the first one as it is."""
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer) and layer.is_initialized]
    return DynamicCache([(layer.keys, layer.values) for layer in layers])
