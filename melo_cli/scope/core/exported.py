"""The router of an export, opened with torch, numpy, safetensors and transformers alone.

    from router.exported import open_router

    router = open_router("our-edits/router", model, tokenizer)
    route = router.routes(["What is the capital of Kazakhstan?"])[0]
    adapter = route.fired.block if route.fired is not None else None

gives the routes of the project, by the same code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from .pooling import KeyTransform
from .reader import Reader, ReadingPlan
from .router import Router, radius_router, verified_router
from .text_model import TextModel

TABLE = "routes.json"
ARRAYS = "keys.safetensors"
SCOPE_ARRAYS = "scope."
"""Prefix of the names of the scope rule's own arrays."""

_PRODUCT_ERROR = 2e-5  # of a squared distance from a float32 product, per sum of the two squared norms

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Neighbour:
    """A neuron near a key; see `rules.Near`."""

    edit_id: str
    block: str | None
    distance: float
    cluster: int | None
    radius: float | None
    center_distance: float | None


class NeuronTable:
    """The neurons of an export, searched exactly.

    Args:
        rows: each with `edit_id`, `prompt`, `adapter`, and under the rule `radius` its `cluster` and
            `radius`.
        arrays: `keys [n, d]`; `tokens [words, width]` with `token_starts [n + 1]`, or `centers [c, d]` in the
            order of the clusters' numbers.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, Tensor]) -> None:
        self._rows = rows
        self._keys = arrays["keys"].numpy()
        self._norms = np.einsum("ij,ij->i", self._keys, self._keys, dtype=np.float64)
        self._numbers = np.array([int(row["edit_id"][1:]) for row in rows], np.int64)
        self._row_of = {row["edit_id"]: at for at, row in enumerate(rows)}
        self._tokens = arrays["tokens"].numpy() if "tokens" in arrays else None
        self._starts = arrays["token_starts"].tolist() if "token_starts" in arrays else []
        self._centers = arrays["centers"].numpy() if "centers" in arrays else None
        clusters = sorted({row["cluster"] for row in rows if "cluster" in row})
        self._center_of = {cluster: at for at, cluster in enumerate(clusters)}

    def nearest(self, keys: NDArray[np.float32], k: int) -> list[list[Neighbour]]:
        """The `k` nearest neurons of each key `[n, d]`, nearest first; of equally near neurons the newest
        first."""
        if not len(self._rows):
            return [[] for _ in keys]
        twice = 2.0 * (keys @ self._keys.T)
        return [self._nearest(key, products, k) for key, products in zip(keys, twice, strict=True)]

    def tokens(self, edit_ids: Sequence[str]) -> list[NDArray[np.float16] | None]:
        """The token vectors of neurons."""
        if self._tokens is None:
            return [None] * len(edit_ids)
        rows = [self._row_of[edit_id] for edit_id in edit_ids]
        return [self._tokens[self._starts[at] : self._starts[at + 1]] for at in rows]

    def keys(self, edit_ids: Sequence[str]) -> NDArray[np.float32]:
        """The keys `[n, d]` of neurons."""
        keys: NDArray[np.float32] = self._keys[[self._row_of[edit_id] for edit_id in edit_ids]]
        return keys

    def prompts(self, edit_ids: Sequence[str]) -> list[str]:
        """The prompts of neurons' edits."""
        return [self._rows[self._row_of[edit_id]]["prompt"] for edit_id in edit_ids]

    def _nearest(self, key: NDArray[np.float32], products: NDArray[np.float32], k: int) -> list[Neighbour]:
        """Leave out what is too far by the matrix product, and compute exact distances of the rest."""
        norms = self._norms + np.dot(key.astype(np.float64), key.astype(np.float64))
        last = min(k, len(norms)) - 1
        limit = np.partition((1.0 + _PRODUCT_ERROR) * norms - products, last)[last]
        near: Numbers = np.nonzero((1.0 - _PRODUCT_ERROR) * norms - products <= limit)[0]
        distances = _distances(self._keys[near], key)
        order = np.lexsort((-self._numbers[near], distances))[:k]
        return [
            self._neighbour(key, at, distance)
            for at, distance in zip(near[order].tolist(), distances[order].tolist(), strict=True)
        ]

    def _neighbour(self, key: NDArray[np.float32], at: int, distance: float) -> Neighbour:
        row = self._rows[at]
        cluster = row.get("cluster")
        to_center = None
        if cluster is not None and self._centers is not None:
            index = self._center_of[cluster]
            to_center = float(_distances(self._centers[index : index + 1], key)[0])
        return Neighbour(row["edit_id"], row["adapter"], distance, cluster, row.get("radius"), to_center)


def open_router(
    folder: str | Path,
    model: Any = None,
    tokenizer: Any = None,
    run: Callable[..., Any] | None = None,
) -> Router:
    """Open the router in a folder.

    Args:
        folder: the `router/` folder of an export.
        model: the base model, as transformers loads it; not needed if the folder has a sentence encoder.
        tokenizer: the tokenizer of the base model; not needed if the folder has a sentence encoder.
        run: the forward pass that reads a prompt, if it is not the model's own.

    Raises:
        ValueError: the router needs `model` and `tokenizer`.
    """
    root = Path(folder)
    table = json.loads((root / TABLE).read_text(encoding="utf-8"))
    arrays = load_file(root / ARRAYS)
    if table["encoder"] is not None:
        inside = root / table["encoder"]["folder"]
        model = AutoModel.from_pretrained(inside, use_safetensors=True, dtype="float32").eval()
        tokenizer, run = AutoTokenizer.from_pretrained(inside), model
    if model is None or tokenizer is None:
        raise ValueError("this router reads prompts with the base model: pass model and tokenizer")
    return _router(table, arrays, _text_model(table["reading"], model, tokenizer, run))


def _text_model(
    reading: Mapping[str, Any], model: Any, tokenizer: Any, run: Callable[..., Any] | None
) -> TextModel:
    if run is None:
        run = model.get_encoder() if model.config.is_encoder_decoder else model
    return TextModel(
        model, run, tokenizer, reading["pad_token_id"], reading["padding_side"], reading["takes_positions"]
    )


def _router(table: Mapping[str, Any], arrays: Mapping[str, Tensor], model: TextModel) -> Router:
    neurons = NeuronTable(table["neurons"], arrays)
    own = {
        name.removeprefix(SCOPE_ARRAYS): array
        for name, array in arrays.items()
        if name.startswith(SCOPE_ARRAYS)
    }
    scope, reading = table["scope"], table["reading"]
    if scope["rule"] == "radius":
        transform = KeyTransform.from_arrays(scope, own)
        return radius_router(model, reading["high"], reading["limit"], transform, neurons)
    plan = ReadingPlan(reading["low"], reading["high"], reading["pooling"], reading["limit"])
    return verified_router(scope, own, Reader(model, plan), neurons)


def _distances(rows: NDArray[np.float32], point: NDArray[np.float32]) -> Floats:
    difference = np.subtract(rows, point, dtype=np.float64)
    measured: Floats = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return measured
