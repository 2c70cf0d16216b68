"""Hidden states of every token of many prompts at one layer, handed out in padded batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    """States that were worked out before: float32 `[length, d]` by place, where the model is."""

    def __init__(self, states: dict[int, Tensor]) -> None:
        self._states = states
        self.dim = int(next(iter(states.values())).shape[-1])

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self._states[place] for place in places]
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        return pad_sequence(rows, batch_first=True), _mask(lengths)


def _mask(lengths: Tensor) -> Tensor:
    """`[n, longest]`, 1 where a row has a token."""
    return (torch.arange(int(lengths.max()), device=lengths.device) < lengths.unsqueeze(1)).long()


def _kept(
    base: BaseModel, layers: Sequence[str], prompts: Sequence[Sequence[int]], places: Collection[int]
) -> dict[str, _Kept]:
    found: dict[str, dict[int, Tensor]] = {layer: {} for layer in layers}
    order = sorted(places, key=lambda place: len(prompts[place]))
    for start in range(0, len(order), _ROWS):
        some = order[start : start + _ROWS]
        inputs = pad_prompts(base, [prompts[place] for place in some])
        real = inputs["attention_mask"].bool()
        for layer, hidden in hidden_states(base, layers, inputs).items():
            for row, place in enumerate(some):
                found[layer][place] = hidden[row, real[row]].float().clone()
    return {layer: _Kept(states) for layer, states in found.items()}
