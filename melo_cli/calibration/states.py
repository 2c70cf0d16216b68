"""Hidden states of every token of many prompts at one layer, handed out in padded batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from melo_cli.architecture import embedding_name
from melo_cli.base_model import BaseModel
from melo_cli.encoding import pad_prompts
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
    """Input embeddings: only the tokens are kept."""

    def __init__(self, base: BaseModel, layer: str, prompts: Sequence[Sequence[int]]) -> None:
        self._base = base
        self._module = base.model.get_submodule(layer)
        self._prompts = prompts
        self.dim = int(
            self._module(torch.zeros((1, 1), dtype=torch.long, device=base.model.device)).shape[-1]
        )

    @torch.no_grad()
    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        inputs = pad_prompts(self._base, [self._prompts[place] for place in places])
        return self._module(inputs["input_ids"]).float(), inputs["attention_mask"]


class _Kept:
    """States that were worked out before: float32 `[length, d]` by place, where the model is."""

    def __init__(self, states: dict[int, Tensor]) -> None:
        self._states = states
        self.dim = int(next(iter(states.values())).shape[-1])

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self._states[place] for place in places]
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        padded = pad_sequence(rows, batch_first=True)
        return padded, (torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)).long()


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
