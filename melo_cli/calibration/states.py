"""Hidden states of every token of many prompts at one layer, handed out in padded batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from melo_cli.architecture import embedding_name
from melo_cli.base_model import BaseModel
from melo_cli.encoding import pad_prompts, padded_rows
from melo_cli.keys import hidden_states

_ROWS = 64


class TokenStates(Protocol):
    """Prompts by place."""

    @property
    def dim(self) -> int: ...

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States `[n, length, d]` float32 and the mask `[n, length]` of real tokens."""


def token_states(
    base: BaseModel, layers: Sequence[str], prompts: Sequence[Sequence[int]], places: Collection[int]
) -> dict[str, TokenStates]:
    """The states of encoded prompts at each layer, by one run of the base.

    They are kept in memory, or looked up again where the layer is the table of input embeddings.

    Args:
        places: the prompts that will be asked for.
    """
    table = embedding_name(base)
    states: dict[str, TokenStates] = {table: Embedded(base, table, prompts)} if table in layers else {}
    deeper = [layer for layer in layers if layer != table]
    return {**states, **_kept(base, deeper, prompts, places)} if deeper else states


class Embedded:
    """Input embeddings: only the tokens are kept, as one padded array `[prompts, longest]`."""

    def __init__(self, base: BaseModel, layer: str, prompts: Sequence[Sequence[int]]) -> None:
        device = base.model.device
        self._module = base.model.get_submodule(layer)
        self._tokens = padded_rows(prompts, 0, "right").to(device)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.dim = int(self._module(self._tokens[:1, :1]).shape[-1])

    @torch.no_grad()
    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        asked = torch.tensor(places, device=self._lengths.device)
        mask = _mask(self._lengths[asked])
        return self._module(self._tokens[asked, : mask.shape[1]]).float(), mask


class _Kept:
    """States that were worked out before, where the model is.

    Args:
        states: float32 `[tokens, d]`, of one prompt after the other.
        starts, lengths: int64 `[prompts]`, where the tokens of each place are.
    """

    def __init__(self, states: Tensor, starts: Tensor, lengths: Tensor) -> None:
        self._states, self._starts, self._lengths = states, starts, lengths
        self.dim = states.shape[-1]

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        asked = torch.tensor(places, device=self._starts.device)
        mask = _mask(self._lengths[asked])
        tokens = self._starts[asked].unsqueeze(1) + torch.arange(mask.shape[1], device=mask.device)
        return self._states[tokens.clamp(max=len(self._states) - 1)], mask


class Pooled:
    """One state a prompt, as its only token: for what pools the same states again and again.

    Args:
        states: float32 `[n, d]`, of these places in turn.
    """

    def __init__(self, states: Tensor, places: Sequence[int]) -> None:
        self._states = states
        self._row = dict(zip(places, range(len(places)), strict=True))
        self.dim = states.shape[-1]

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([self._row[place] for place in places], device=self._states.device)
        return self._states[rows].unsqueeze(1), torch.ones((len(places), 1), device=rows.device)


def _mask(lengths: Tensor) -> Tensor:
    """`[n, longest]`, 1 where a row has a token."""
    return (torch.arange(int(lengths.max()), device=lengths.device) < lengths.unsqueeze(1)).long()


def _kept(
    base: BaseModel, layers: Sequence[str], prompts: Sequence[Sequence[int]], places: Collection[int]
) -> dict[str, _Kept]:
    order = sorted(places, key=lambda place: len(prompts[place]))
    counts = torch.tensor([len(prompts[place]) for place in order])
    device = base.model.device
    lengths = torch.zeros(len(prompts), dtype=torch.long)
    starts = torch.zeros(len(prompts), dtype=torch.long)
    lengths[order], starts[order] = counts, counts.cumsum(0) - counts
    found: dict[str, Tensor] = {}
    filled = 0
    for start in range(0, len(order), _ROWS):
        inputs = pad_prompts(base, [prompts[place] for place in order[start : start + _ROWS]])
        real = inputs["attention_mask"].bool()
        tokens = int(real.sum())
        for layer, hidden in hidden_states(base, layers, inputs).items():
            if layer not in found:
                found[layer] = torch.empty((int(counts.sum()), hidden.shape[-1]), device=device)
            found[layer][filled : filled + tokens] = hidden[real]
        filled += tokens
    return {layer: _Kept(states, starts.to(device), lengths.to(device)) for layer, states in found.items()}
