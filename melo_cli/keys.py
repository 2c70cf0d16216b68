"""Takes a prompt's key: the hidden state at the key layer, pooled over the prompt's own tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melo_cli.base_model import BaseModel, ModelKind
from melo_cli.encoding import with_positions


class _KeyReached(Exception):  # noqa: N818  (not an error: it ends the forward pass at the key layer)
    pass


class KeyExtractor:
    """Runs the base as far as the key layer and no further.

    A key depends on its prompt alone: not on padding, its side, or batch-mates (float tolerance).

    Args:
        layer: full name of a module whose output is `[batch, length, d]`.
        pooling: `last` (the last prompt token), `first`, or `mean` (over real tokens).
    """

    def __init__(self, base: BaseModel, layer: str, pooling: str) -> None:
        self.base = base
        self.layer = layer
        self.pooling = pooling
        self._module = base.model.get_submodule(layer)

    def __call__(self, inputs: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """Keys of a padded batch.

        Args:
            inputs: `input_ids` and `attention_mask`, `[batch, length]`, padded on either side.

        Returns:
            `[batch, d]` float32.
        """
        filled = with_positions(self.base, inputs)
        hidden = self._hidden_states(filled)
        keys = pool(hidden.float(), filled["attention_mask"], self.pooling)
        pooled: NDArray[np.float32] = keys.cpu().numpy()
        return pooled

    @torch.no_grad()
    def _hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        caught: list[Tensor] = []

        def catch(_module: Any, _args: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)
            raise _KeyReached

        runner = self.base.model.get_encoder() if self.base.kind is ModelKind.SEQ2SEQ else self.base.model
        hook = self._module.register_forward_hook(catch)
        try:
            runner(**inputs)
        except _KeyReached:
            pass
        finally:
            hook.remove()
        return caught[0]


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool `[batch, length, d]` over the tokens that `mask` `[batch, length]` marks as real: `[batch, d]`."""
    if pooling == "mean":
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    real = mask.bool()
    if pooling == "last":
        index = positions.masked_fill(~real, -1).amax(1)
    else:
        index = positions.masked_fill(~real, mask.shape[1]).amin(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]
