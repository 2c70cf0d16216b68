"""Takes a prompt's key: the hidden state at the key layer, pooled over the prompt's own tokens and mapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from melo_cli.base_model import BaseModel, ModelKind
from melo_cli.encoding import with_positions
from store.records import JSON, KeyMap


class _AllCaught(Exception):  # noqa: N818  (not an error: it ends the forward pass at the last layer asked for)
    pass


@dataclass(frozen=True)
class KeyTransform:
    """From the hidden states of a prompt's tokens to its key.

    Attributes:
        pooling: `last` (the last prompt token), `first`, `mean` (over real tokens), or `learned`.
        unit: scale the pooled state, and the projected one, to length 1.
        token_weights: `[d]`, for `learned`: a token's score is its state times this, and the pooled state the
            mean under the softmax of the scores over the prompt.
        center: `[d]`, taken from the pooled state first of all.
        projection: `[d, k]`, applied last.
    """

    pooling: str
    unit: bool = False
    token_weights: Tensor | None = None
    center: Tensor | None = None
    projection: Tensor | None = None

    @classmethod
    def from_key_map(cls, key_map: KeyMap, device: torch.device) -> KeyTransform:
        """What calibration left in a project."""
        arrays = {name: torch.tensor(array, device=device) for name, array in key_map.arrays.items()}
        return cls(str(key_map.settings["pooling"]), unit=bool(key_map.settings["unit"]), **arrays)

    def to_key_map(self, settings: Mapping[str, JSON]) -> KeyMap:
        """The same for the store, with whatever else is to be known of it."""
        arrays = {name: part.numpy() for name, part in self.arrays().items()}
        return KeyMap({**settings, "pooling": self.pooling, "unit": self.unit}, arrays)

    def arrays(self) -> dict[str, Tensor]:
        """Those of its tensors that there are, by name, on the CPU."""
        named = {
            "token_weights": self.token_weights,
            "center": self.center,
            "projection": self.projection,
        }
        return {name: part.detach().cpu().contiguous() for name, part in named.items() if part is not None}

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Keys `[batch, k]` float32 of hidden states `[batch, length, d]`, `mask` `[batch, length]` marking
        the real tokens."""
        return self.finish(pool(hidden.float(), mask, self.pooling, self.token_weights))

    def finish(self, pooled: Tensor) -> Tensor:
        """Keys `[batch, k]` of pooled states `[batch, d]`."""
        if self.center is not None:
            pooled = pooled - self.center
        if self.unit:
            pooled = normalize(pooled, dim=-1)
        if self.projection is not None:
            pooled = pooled @ self.projection
            pooled = normalize(pooled, dim=-1) if self.unit else pooled
        return pooled


class KeyExtractor:
    """Runs the base as far as the key layer and no further.

    A key depends on its prompt alone: not on padding, its side, or batch-mates (float tolerance).

    Args:
        layer: full name of a module whose output is `[batch, length, d]`.
    """

    def __init__(self, base: BaseModel, layer: str, transform: KeyTransform) -> None:
        self.base = base
        self.layer = layer
        self.transform = transform

    def __call__(self, inputs: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """Keys of a padded batch.

        Args:
            inputs: `input_ids` and `attention_mask`, `[batch, length]`, padded on either side.

        Returns:
            `[batch, k]` float32.
        """
        filled = with_positions(self.base, inputs)
        hidden = hidden_states(self.base, [self.layer], filled)[self.layer]
        keys: NDArray[np.float32] = self.transform(hidden, filled["attention_mask"]).cpu().numpy()
        return keys


@torch.no_grad()
def hidden_states(base: BaseModel, layers: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs `[batch, length, d]` of layers, by one run of the base as far as the last of them.

    Args:
        inputs: a padded batch with its positions (`with_positions`).
    """
    caught: dict[str, Tensor] = {}

    def catch(layer: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            caught[layer] = output[0] if isinstance(output, tuple) else output
            if len(caught) == len(layers):
                raise _AllCaught

        return hook

    runner = base.model.get_encoder() if base.kind is ModelKind.SEQ2SEQ else base.model
    hooks = [base.model.get_submodule(layer).register_forward_hook(catch(layer)) for layer in layers]
    try:
        runner(**inputs)
    except _AllCaught:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def pool(hidden: Tensor, mask: Tensor, pooling: str, token_weights: Tensor | None = None) -> Tensor:
    """Pool `[batch, length, d]` over the tokens that `mask` `[batch, length]` marks as real: `[batch, d]`."""
    if pooling == "learned":
        assert token_weights is not None, "calibration learns them"
        scores = (hidden @ token_weights).masked_fill(mask == 0, -torch.inf)
        return _weighted(hidden, scores.softmax(-1))
    if pooling == "mean":
        weights = mask.to(hidden.dtype)
        return _weighted(hidden, weights) / weights.sum(1, keepdim=True)
    positions = torch.arange(mask.shape[1], device=mask.device)
    real = mask.bool()
    if pooling == "last":
        index = positions.masked_fill(~real, -1).amax(1)
    else:
        index = positions.masked_fill(~real, mask.shape[1]).amin(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """The sum over tokens of states `[batch, length, d]` times weights `[batch, length]`, as one product."""
    return torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)
