"""The route table of an export: `routes.json`, `keys.safetensors` and the code that reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from melo_cli.exporting.standalone import exact_router
from melo_cli.exporting.standalone.exact_router import ARRAYS, TABLE
from melo_cli.loading import OpenProject
from store.records import edit_id

ROUTER = "router"


def write_router(opened: OpenProject, folder: Path, block_ids: Sequence[str]) -> None:
    """Write how a key is taken, the clusters, and every edit in them with its key and its block.

    An edit without a block leads to the base.

    `keys.safetensors` holds `keys [n, d]` in the order of the table's neurons, `centers [c, d]` in that of
    its clusters, and the arrays of the key map; all float32.

    Args:
        block_ids: the blocks of the export, in its order.
    """
    clusters = opened.project.clusters()
    place = {block_id: index for index, block_id in enumerate(block_ids)}
    rows: list[dict[str, Any]] = []
    keys: list[NDArray[np.float32]] = []
    for cluster in clusters:
        for number in cluster.members:
            edit = opened.project.edit(edit_id(number))
            assert edit.record.key is not None, "a neuron has one"
            keys.append(edit.record.key)
            rows.append(
                {
                    "edit_id": edit.edit_id,
                    "prompt": edit.prompt,
                    "adapter": edit.block,
                    "block": place[edit.block] if edit.block is not None else None,
                    "cluster": cluster.number,
                }
            )
    settings, arrays = key_map_of(opened)
    table = {
        "key": {"layer": opened.recipe.key.layer} | settings,
        "base": _base(opened),
        "tokenizer": _tokenizer(opened),
        "clusters": [{"cluster": cluster.number, "radius": cluster.radius} for cluster in clusters],
        "neurons": rows,
    }
    folder.mkdir(parents=True)
    (folder / TABLE).write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")
    shutil.copyfile(exact_router.__file__, folder / Path(exact_router.__file__).name)
    size = opened.project.key_dim or 0
    arrays["keys"] = torch.tensor(np.stack(keys) if keys else np.zeros((0, size), np.float32))
    centers = np.stack([c.center for c in clusters]) if clusters else np.zeros((0, size), np.float32)
    save_file(arrays | {"centers": torch.tensor(centers)}, folder / ARRAYS)


def key_map_of(opened: OpenProject) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How the project makes a key of hidden states: the settings and arrays of `exact_router.KeyMap`."""
    key_map = opened.project.key_map
    if key_map is None:
        return {"pooling": opened.recipe.key.pooling, "unit": False}, {}
    settings = {"pooling": str(key_map.settings["pooling"]), "unit": bool(key_map.settings["unit"])}
    return settings, {name: torch.tensor(array) for name, array in key_map.arrays.items()}


def _base(opened: OpenProject) -> dict[str, Any]:
    reference = opened.project.base
    return {
        "name_or_path": reference.name_or_path,
        "revision": reference.revision,
        "dtype": opened.recipe.model.dtype,
        "fingerprint": dict(reference.fingerprint),
    }


def _tokenizer(opened: OpenProject) -> dict[str, Any]:
    """What a prompt's tokens depend on beside the tokenizer's files."""
    tokenizer = opened.routed.tokenizer
    return {
        "name_or_path": opened.recipe.model.tokenizer,
        "template": opened.encoder.template,
        "truncate": opened.encoder.truncate,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
