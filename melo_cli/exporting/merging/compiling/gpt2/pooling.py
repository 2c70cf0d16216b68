"""The means that the added heads of a GPT-2 make of the tokens so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.gpt2.layout import EARLY
from melo_cli.exporting.merging.training_examples import TrainingExample

# By how many tokens a beginning of a prompt is longer than the one before.
_EVERY = 8


class Pooling:
    """What attention reads in the first layer of a base, and its means over a prompt."""

    def __init__(self, plain: PreTrainedModel) -> None:
        self._stack: Any = plain.transformer

    @torch.no_grad()
    def read(self, ids: Sequence[int]) -> Tensor:
        """What is read at each token of a text, `[tokens, d]`."""
        stack = self._stack
        tokens = torch.tensor(ids, device=stack.wte.weight.device)
        positions = torch.arange(len(ids), device=tokens.device)
        read: Tensor = stack.h[0].ln_1(stack.wte(tokens) + stack.wpe(positions))
        return read.float().cpu()

    def __call__(self, training_examples: Sequence[TrainingExample]) -> Tensor:
        """The mean of all tokens of each prompt, and after it that of the first `[training_examples, 2
        d]`."""
        return torch.stack([_means(self.read(example.encoded.prompt_ids)) for example in training_examples])

    def beginnings(self, training_examples: Sequence[TrainingExample]) -> list[Tensor]:
        """The same of the beginnings of each prompt, some tokens more each time, each `[2 d]`."""
        read = [self.read(example.encoded.prompt_ids) for example in training_examples]
        return [_means(each[:end]) for each in read for end in range(_EVERY, len(each), _EVERY)]


def _means(read: Tensor) -> Tensor:
    return torch.cat([read.mean(0), read[:EARLY].mean(0)])
