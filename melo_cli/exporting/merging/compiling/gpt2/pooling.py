"""Mean embeddings of a GPT-2's tokens, as the added heads compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.compiling.gpt2.layout import EARLY
from melo_cli.exporting.merging.training_examples import TrainingExample

# Step, in tokens, between two beginnings of a prompt.
_EVERY = 8


class Pooling:
    """The input of the first attention layer of a base model, and its means over a prompt."""

    def __init__(self, base_copy: PreTrainedModel) -> None:
        self._stack: Any = base_copy.transformer

    @torch.no_grad()
    def read(self, ids: Sequence[int]) -> Tensor:
        """The input of the first attention layer at each token of a text, `[tokens, d]` float32."""
        stack = self._stack
        tokens = torch.tensor(ids, device=stack.wte.weight.device)
        positions = torch.arange(len(ids), device=tokens.device)
        read: Tensor = stack.h[0].ln_1(stack.wte(tokens) + stack.wpe(positions))
        return read.float().cpu()

    def __call__(self, training_examples: Sequence[TrainingExample]) -> Tensor:
        """The mean over all tokens of each prompt beside the mean over its first tokens, `[examples, 2
        d]`."""
        return torch.stack([_means(self.read(example.encoded.prompt_ids)) for example in training_examples])

    def beginnings(self, training_examples: Sequence[TrainingExample]) -> list[Tensor]:
        """The same means `[2 d]` over each beginning of each prompt, `_EVERY` tokens longer each time."""
        read = [self.read(example.encoded.prompt_ids) for example in training_examples]
        return [_means(each[:end]) for each in read for end in range(_EVERY, len(each), _EVERY)]


def _means(read: Tensor) -> Tensor:
    return torch.cat([read.mean(0), read[:EARLY].mean(0)])
