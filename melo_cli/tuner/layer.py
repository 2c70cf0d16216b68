"""A target module that adds, row by row, the block that each row was routed to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from melo_cli.models.linear_layers import linear_shape
from melo_cli.tuner.grouped import grouped_delta


@dataclass(frozen=True)
class SliceBank:
    """The slices of `n` blocks for one target module, stacked.

    Attributes:
        A: `[n, rank, in]` float32.
        B: `[n, out, rank]` float32.
        scale: `[n]` float32, `alpha / rank` of each block.
    """

    A: Tensor
    B: Tensor
    scale: Tensor


@dataclass(frozen=True)
class ActiveBlocks:
    """What one forward pass adds: the banks by target module, and each row's index in them.

    Attributes:
        banks: target module name -> bank of `n` blocks.
        rows: `[batch]` int64 on the model's device, the bank entry of each prompt, -1 for the base.
        fired: `[fired]` int64, the rows that are not the base's, ascending.
        grouped: whether the rows are those of the first entry, then as many of the second, and so on to the
            last, as in training: then nothing needs to be gathered.
    """

    banks: Mapping[str, SliceBank]
    rows: Tensor
    fired: Tensor
    grouped: bool
    _gathered: dict[str, SliceBank] = field(default_factory=dict)

    @classmethod
    def of(cls, banks: Mapping[str, SliceBank], rows: Sequence[int], device: torch.device) -> ActiveBlocks:
        """Put `rows` on `device`, and find the rows that fire once for all layers and steps."""
        fired = [index for index, row in enumerate(rows) if row >= 0]
        count = next((len(bank.scale) for bank in banks.values()), 0)
        even = count > 0 and len(rows) % count == 0
        return cls(
            banks,
            torch.tensor(rows, dtype=torch.long, device=device),
            torch.tensor(fired, dtype=torch.long, device=device),
            grouped=even and list(rows) == [i * count // len(rows) for i in range(len(rows))],
        )

    @property
    def all_fire(self) -> bool:
        """Whether no row is the base's."""
        return len(self.fired) == len(self.rows)

    def gathered(self, name: str) -> SliceBank:
        """The slices of each fired row for one module, gathered at its first pass: decoding makes many.

        Returns:
            A bank of `[fired]` entries, or of one for each group where the rows are grouped; its `B` is
            multiplied with the scale and laid out transposed.
        """
        if name not in self._gathered:
            bank = self.banks[name]
            A, B, scale = bank.A, bank.B.transpose(1, 2), bank.scale
            if not self.grouped:
                entries = self.rows.index_select(0, self.fired)
                A, B, scale = (part.index_select(0, entries) for part in (A, B, scale))
            B = (B * scale.view(-1, 1, 1)).contiguous()
            self._gathered[name] = SliceBank(A, B.transpose(1, 2), scale)
        return self._gathered[name]

    def expanded(self, copies: int) -> ActiveBlocks:
        """The same for a batch in which generation put `copies` beams or samples of each prompt in a row."""
        if copies == 1:
            return self
        offsets = torch.arange(copies, device=self.fired.device)
        return ActiveBlocks(
            self.banks,
            self.rows.repeat_interleave(copies),
            (self.fired.unsqueeze(1) * copies + offsets).reshape(-1),
            self.grouped,
        )


class Routing:
    """The blocks in force in one model: held by the model, seen by its layers, set for one pass at a time."""

    def __init__(self) -> None:
        self._active: ActiveBlocks | None = None
        self._expanded: dict[int, ActiveBlocks] = {}

    @contextmanager
    def using(self, active: ActiveBlocks) -> Iterator[None]:
        """Put `active` in force inside the block, and what was in force before it back, whatever happens."""
        before = self._active
        self._active, self._expanded = active, {}
        try:
            yield
        finally:
            self._active, self._expanded = before, {}

    def for_batch(self, size: int) -> ActiveBlocks | None:
        """The blocks for a batch of `size` rows, or None where no row leaves the base.

        Raises:
            ValueError: `size` is no multiple of the number of prompts that were routed.
        """
        if self._active is None or not len(self._active.fired):
            return None
        copies, rest = divmod(size, len(self._active.rows))
        if rest or not copies:
            raise ValueError(f"{size} rows are no multiple of {len(self._active.rows)} routed prompts")
        if copies not in self._expanded:
            self._expanded[copies] = self._active.expanded(copies)
        return self._expanded[copies]


class DynamicLoraLayer(nn.Module):
    """Wraps a Linear or Conv1D; its weights stay as they are, and it owns no parameter itself.

    Blocks live outside the module tree and come in through `routing`, so that ten thousand of them
    cost the model nothing.

    Attributes:
        base_layer: what is wrapped.
        name: its full name in the model.
    """

    def __init__(self, base_layer: nn.Module, name: str, routing: Routing) -> None:
        super().__init__()
        self.in_features, self.out_features = linear_shape(base_layer)
        self.base_layer = base_layer
        self.name = name
        self.routing = routing

    @property
    def weight(self) -> Tensor:
        """The base's: transformers' T5 looks at the dtype of its layers' weights."""
        weight = self.base_layer.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """`base_layer(x)`, plus `scale * B A x` on the rows that were routed to a block."""
        result: Tensor = self.base_layer(x)
        active = self.routing.for_batch(len(x))
        if active is None or self.name not in active.banks:
            return result
        return add_blocks(result, x, self.name, active)


def add_blocks(result: Tensor, x: Tensor, name: str, active: ActiveBlocks) -> Tensor:
    """Add each fired row's block to what module `name` gave.

    Args:
        result: `[batch, ..., out]`, what the base module gave; it is written into where no gradient is
            taken, which spares decoding a copy.
        x: `[batch, ..., in]`, what it was given.

    Returns:
        `[batch, ..., out]` in the dtype of `result`; rows of the base are untouched, bit for bit.
    """
    if active.grouped and torch.is_grad_enabled():
        bank = active.banks[name]
        groups = x.reshape(len(bank.scale), -1, x.shape[-1]).to(bank.A.dtype)
        return result + grouped_delta(groups, bank.A, bank.B, bank.scale).view(result.shape).to(result.dtype)
    bank = active.gathered(name)
    whole = result.clone() if torch.is_grad_enabled() else result
    inputs = x.reshape(len(x), -1, x.shape[-1])
    if not active.all_fire:
        inputs = inputs.index_select(0, active.fired)
    inputs = inputs.view(len(bank.A), -1, x.shape[-1]).to(bank.A.dtype)
    low, B = torch.bmm(bank.A, inputs.transpose(1, 2)).transpose(1, 2), bank.B.transpose(1, 2)
    if not active.all_fire:
        rows = whole.view(len(whole), -1, whole.shape[-1])
        rows.index_add_(0, active.fired, torch.bmm(low, B).to(rows.dtype))
        return whole
    rows = whole.view(len(bank.A), -1, whole.shape[-1])
    if rows.dtype == B.dtype:
        rows.baddbmm_(low, B)
    else:
        rows.add_(torch.bmm(low, B))
    return whole
