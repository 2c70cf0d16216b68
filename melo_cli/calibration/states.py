"""Hidden states of every token of many prompts at one layer, handed out in padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from melo_cli.architecture import embedding_name
from melo_cli.base_model import BaseModel
from melo_cli.encoding import pad_prompts
from melo_cli.keys import KeyExtractor, KeyTransform

_ROWS = 64


class TokenStates(Protocol):
    """Prompts by place."""

    @property
    def dim(self) -> int: ...

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States `[n, length, d]` float32 and the mask `[n, length]` of real tokens."""


def token_states(base: BaseModel, layer: str, prompts: Sequence[Sequence[int]]) -> TokenStates:
    """The states of encoded prompts: kept in memory, or looked up again where the layer is a table."""
    if layer == embedding_name(base):
        return _Embedded(base, layer, prompts)
    return _Kept(base, layer, prompts)


class _Embedded:
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
    """Another layer: its states are worked out once, and kept as float32 where the model is."""

    def __init__(self, base: BaseModel, layer: str, prompts: Sequence[Sequence[int]]) -> None:
        extractor = KeyExtractor(base, layer, KeyTransform("mean"))
        self._states: dict[int, Tensor] = {}
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            inputs = pad_prompts(base, [prompts[place] for place in places])
            hidden = extractor.hidden_states(inputs).float()
            for row, place in enumerate(places):
                self._states[place] = hidden[row, inputs["attention_mask"][row].bool()].clone()
        self.dim = int(self._states[order[0]].shape[-1])

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self._states[place] for place in places]
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        padded = pad_sequence(rows, batch_first=True)
        return padded, (torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)).long()
