"""Which edit answers a prompt: keys from hidden states, and an exact search among the neurons.

Written by `melo export`; needs torch, numpy and safetensors alone. `routes.json` says how a key is taken and
names the rows of `keys.safetensors`; a route is the one that the project itself would take.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

TABLE = "routes.json"
ARRAYS = "keys.safetensors"

# A key computed again in another batch differs by about 1e-6 of its norm: this near, two keys are one.
_TOLERANCE = 1e-4
# Of a squared distance from a float32 matrix product, per sum of the squared norms.
_PRODUCT_ERROR = 2e-5

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class KeyMap:
    """From the hidden states at the key layer to a key.

    Attributes:
        pooling: `last`, `first`, `mean`, or `learned`: a softmax over the prompt's tokens of
            `hidden @ token_weights`.
        center: `[d]`, taken from the pooled state.
        unit: whether the centered state, and the projected one, are scaled to length 1.
        projection: `[d, k]`, applied last.
    """

    pooling: str
    unit: bool = False
    token_weights: Tensor | None = None
    center: Tensor | None = None
    projection: Tensor | None = None

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Keys `[batch, k]` float32 of hidden states `[batch, length, d]`; `mask` marks the real tokens."""
        hidden = hidden.float()
        key = _pooled(hidden, mask, self.pooling, self.token_weights)
        if self.center is not None:
            key = key - self.center.to(key.device)
        if self.unit:
            key = torch.nn.functional.normalize(key, dim=-1)
        if self.projection is not None:
            key = key @ self.projection.to(key.device)
            key = torch.nn.functional.normalize(key, dim=-1) if self.unit else key
        return key


@dataclass(frozen=True)
class Fired:
    """The edit that answers a prompt.

    Attributes:
        adapter: the name of its block.
        block: the block's place in `blocks.safetensors`; None where there are adapters instead.
        distance: L2, from the prompt's key to the edit's.
    """

    edit_id: str
    adapter: str
    block: int | None
    distance: float


class _KeyReached(Exception):  # noqa: N818  (not an error: it ends the forward pass at the key layer)
    pass


def hidden_states(run: Callable[..., Any], layer: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What `layer` gives for a batch, `[batch, length, d]`; `run` (a model's forward) goes no further."""
    caught: list[Tensor] = []

    def catch(_module: Any, _arguments: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _KeyReached

    hook = layer.register_forward_hook(catch)
    try:
        run(**inputs)
    except _KeyReached:
        pass
    finally:
        hook.remove()
    return caught[0]


class Router:
    """The route table of one export.

    Args:
        table: what `routes.json` holds.
        arrays: `keys [n, d]` and `centers [c, d]` float32 in the order of the table, and the key map's.
    """

    def __init__(self, table: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        key = table["key"]
        self.layer: str = key["layer"]
        self.key_map = KeyMap(
            pooling=key["pooling"],
            unit=key["unit"],
            **{name: arrays.get(name) for name in ("token_weights", "center", "projection")},
        )
        self.table = table
        self._neurons = table["neurons"]
        self._keys = arrays["keys"].numpy()
        self._centers = arrays["centers"].numpy()
        self._radii = np.array([cluster["radius"] for cluster in table["clusters"]], np.float64)
        # Relative to one of them, so that rounding takes little.
        origin = self._centers[:1]
        self._shifted = self._centers - origin
        self._origin = origin
        self._norms = np.einsum("ij,ij->i", self._shifted, self._shifted, dtype=np.float64)
        self._numbers = np.array([int(neuron["edit_id"][1:]) for neuron in self._neurons], np.int64)
        self._members = _members(table)

    @classmethod
    def open(cls, table: str | Path, arrays: str | Path) -> Router:
        """Read `routes.json` and `keys.safetensors`."""
        return cls(json.loads(Path(table).read_text(encoding="utf-8")), load_file(arrays))

    def route(self, keys: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> list[Fired | None]:
        """Who answers each key `[n, k]` float32; None for the base.

        Of the clusters whose ball holds the key, the nearest member decides; of members equally near, the
        newest. One without an adapter leads to the base.
        """
        return [self._route(key) for key in keys]

    def _route(self, key: NDArray[np.float32]) -> Fired | None:
        clusters = self._holding(key)
        if not len(clusters):
            return None
        rows = np.concatenate([self._members[cluster] for cluster in clusters.tolist()])
        apart = _distances(self._keys[rows], key)
        nearest = np.lexsort((-self._numbers[rows], apart))[0]
        neuron = self._neurons[rows[nearest]]
        if neuron["adapter"] is None:
            return None
        return Fired(neuron["edit_id"], neuron["adapter"], neuron.get("block"), float(apart[nearest]))

    def _holding(self, key: NDArray[np.float32]) -> Rows:
        """The clusters that hold a key: a matrix product leaves out the far ones, the others are measured."""
        if not len(self._radii):
            return np.empty(0, np.int64)
        margin = _TOLERANCE * (1.0 + float(np.linalg.norm(key.astype(np.float64))))
        shifted = key - self._origin[0]
        norm = float(np.dot(shifted.astype(np.float64), shifted.astype(np.float64)))
        squared = self._norms + norm - 2.0 * (self._shifted @ shifted).astype(np.float64)
        least = np.sqrt(np.maximum(squared - _PRODUCT_ERROR * (self._norms + norm), 0.0))
        near = np.nonzero(least <= self._radii + margin)[0]
        holding: Rows = near[_distances(self._centers[near], key) <= self._radii[near] + margin]
        return holding


def _pooled(hidden: Tensor, mask: Tensor, pooling: str, token_weights: Tensor | None) -> Tensor:
    real = mask.bool()
    if pooling == "mean":
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)
    if pooling == "learned":
        if token_weights is None:
            raise ValueError("pooling is learned, and the key map has no token weights")
        scores = hidden @ token_weights.to(hidden.device)
        shares = scores.masked_fill(~real, -torch.inf).softmax(-1)
        return (hidden * shares.unsqueeze(-1)).sum(1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    if pooling == "last":
        index = positions.masked_fill(~real, -1).amax(1)
    else:
        index = positions.masked_fill(~real, mask.shape[1]).amin(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def _members(table: dict[str, Any]) -> list[Rows]:
    """For each cluster, in the order of the table, the rows of its neurons."""
    place = {cluster["cluster"]: index for index, cluster in enumerate(table["clusters"])}
    rows: list[list[int]] = [[] for _ in place]
    for row, neuron in enumerate(table["neurons"]):
        rows[place[neuron["cluster"]]].append(row)
    return [np.array(members, np.int64) for members in rows]


def _distances(rows: NDArray[np.float32], point: NDArray[np.float32]) -> Floats:
    apart = np.subtract(rows, point, dtype=np.float64)
    measured: Floats = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return measured
