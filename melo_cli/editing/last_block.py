"""Runs the last block only at the positions whose states anything reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.editing.frozen_prefix import replaced_forward
from melo_cli.models.architecture import last_block

# What a block does to each position by itself, in the order of running: queries and the end of its attention,
# and its feed-forward (GPT-2, Llama and their kin; BERT and its kin).
_BY_POSITION = (
    "attn.c_proj",
    "self_attn.q_proj",
    "self_attn.o_proj",
    "mlp",
    "attention.output",
    "intermediate",
    "output",
)


@contextmanager
def last_block_where_read(model: nn.Module, last: tuple[int, int] | None = None) -> Iterator[None]:
    """Inside the block, passes over one and the same batch leave out states of the last block nobody reads.

    A classifier reads the state of one position, the loss of a language model those before the targets. Where
    they are not known, the first pass is an ordinary one; autograd says which states its logits depend on.
    From then on, what the block does to each position by itself is done to these alone, and the others get
    zeros. Its keys and values are made everywhere. An architecture whose parts have other names runs as
    always.

    The model must be given the same inputs at every pass. On leaving, whatever happened, it is as it was.

    Args:
        model: the model.
        last: how many positions are read, the last ones of a row, and how many there are; None if not known.
    """
    block = last_block(model)
    modules = dict(block.named_modules()) if block is not None else {}
    parts = [modules[name] for name in _BY_POSITION if name in modules]
    read = _Read() if last is None else _Read(last[1] - last[0], last[1])
    with ExitStack() as undo:
        if block is not None and parts:
            for hook in (block.register_forward_hook(read.listen), model.register_forward_hook(read.trace)):
                undo.callback(hook.remove)
        for part in parts:
            undo.enter_context(replaced_forward(part, _Part(part.forward, read).run))
        yield


class _Read:
    """The positions that are read, `start` to `stop` of `length`: known, or once a whole pass has shown
    them."""

    def __init__(self, start: int = 0, length: int = 0) -> None:
        self.is_known = length > 0
        self.start, self.stop, self.length = start, length, length
        self._states: Any = None

    def listen(self, _block: nn.Module, _args: Any, output: Any) -> None:
        """A forward hook on the block."""
        if not self.is_known:
            self._states = output[0] if isinstance(output, tuple) else output

    def trace(self, _model: nn.Module, _args: Any, output: Any) -> None:
        """A forward hook on the model."""
        if self.is_known:
            return
        states, self._states = self._states, None
        if not isinstance(states, Tensor) or states.dim() != 3 or not states.requires_grad:
            return
        # Not by the gradient of the loss, which is zero where a target is certain already.
        logits = output.logits
        weights = torch.linspace(1, 2, logits.numel(), dtype=logits.dtype, device=logits.device)
        (gradient,) = torch.autograd.grad(
            logits, states, weights.view_as(logits), retain_graph=True, materialize_grads=True
        )
        positions = gradient.any(-1).any(0).nonzero()[:, 0].tolist()  # once a batch the host waits for it
        if positions:  # none where the logits come from elsewhere
            self.start, self.stop, self.length = positions[0], positions[-1] + 1, states.shape[1]
            self.is_known = True


class _Part:
    """A module that takes states `[batch, positions, ...]`, and gives such."""

    def __init__(self, forward: Callable[..., Any], read: _Read) -> None:
        self._forward, self._read = forward, read
        self._is_by_position = True  # until it shows otherwise

    def run(self, *states: Any, **more: Any) -> Any:
        read = self._read
        if not read.is_known:
            output = self._forward(*states, **more)
            self._is_by_position = not more and all(_is_alike(each, output) for each in (output, *states))
            return output
        if not self._is_by_position or more or not all(map(self._is_whole, states)):
            return self._forward(*states, **more)
        some = [each[:, read.start : read.stop].contiguous() for each in states]
        output = self._forward(*some)
        if isinstance(output, Tensor) and output.shape[1] == read.length:
            return output  # something in it hands out what it gave for all positions
        self._is_by_position = all(_is_alike(each, output) for each in some)
        if not self._is_by_position:
            return self._forward(*states)
        return nn.functional.pad(output, (0, 0, read.start, read.length - read.stop))

    def _is_whole(self, states: Any) -> bool:
        return isinstance(states, Tensor) and states.dim() == 3 and states.shape[1] == self._read.length


def _is_alike(states: Any, others: Any) -> bool:
    return isinstance(states, Tensor) and isinstance(others, Tensor) and states.shape[:2] == others.shape[:2]
