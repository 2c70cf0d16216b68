"""The router of an export: `routes.json`, `keys.safetensors`, the sentence encoder if any, and the code."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from melo_cli.exporting.base_copy import copy_encoder
from melo_cli.models.sentence_encoder import SentenceEncoder
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope import core
from melo_cli.scope.core.exported import ARRAYS, SCOPE_ARRAYS, TABLE
from melo_cli.scope.core.rules import Verified
from melo_cli.scope.reading import reading_plan, text_model_of
from melo_store.records import EditView

ROUTER = "router"
ENCODER = "encoder"

Arrays = dict[str, Tensor]


def write_router(opened: OpenProject, folder: Path, block_ids: Sequence[str]) -> None:
    """Write `routes.json` and `keys.safetensors`: how prompts are read, the scope rule, and every neuron.

    A neuron without a block leads to the base model.

    `keys.safetensors` holds `keys [n, d]` float32 in the order of the table's neurons, and under `scope.` the
    arrays of the scope rule. Under `verified`, `tokens [words, width]` float16 holds the token vectors of all
    neurons, one neuron after the other; `token_starts [n + 1]` int64 says where each begins. Under `radius`,
    `centers [c, d]` float32 holds the centers of the clusters in the order of their numbers.

    Args:
        block_ids: the blocks of the export, in its order.
    """
    folder.mkdir()
    neurons = [
        edit
        for edit in opened.project.edits()
        if edit.record.key is not None and edit.status in ("live", "already_right")
    ]
    by_radius = opened.recipe.routing.scope == "radius"
    rule, arrays = _radius(opened) if by_radius else _verified(opened, neurons)
    arrays["keys"] = torch.tensor(_keys(opened, neurons))
    encoder = opened.routed.base.encoder
    table = {
        "scope": rule,
        "reading": _reading(opened),
        "encoder": None if encoder is None else _encoder(encoder, folder / ENCODER),
        "base": _base(opened),
        "tokenizer": _tokenizer(opened),
        "open_requests": opened.told.in_use,
        "neurons": _rows(opened, neurons, block_ids),
    }
    (folder / TABLE).write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")
    save_file(arrays, folder / ARRAYS)


def write_code(folder: Path, *, package: bool) -> None:
    """Copy the code of the router: the files of `melo_cli/scope/core/`, which import each other.

    Args:
        folder: where to copy them.
        package: make the folder a package; False leaves that to transformers.
    """
    for path in Path(core.__file__).parent.glob("*.py" if package else "[!_]*.py"):
        shutil.copyfile(path, folder / path.name)


def _verified(opened: OpenProject, neurons: Sequence[EditView]) -> tuple[dict[str, Any], Arrays]:
    rule = opened.routed.router.rule
    assert isinstance(rule, Verified)
    model, own = rule.model.to_arrays()
    stored = opened.project.tokens([edit.edit_id for edit in neurons])
    tokens = [np.empty((0, 0), np.float16) if each is None else each for each in stored]
    width = max((each.shape[1] for each in tokens), default=0)
    arrays = {f"{SCOPE_ARRAYS}{name}": array for name, array in own.items()}
    every = [each.reshape(-1, width) for each in (np.empty((0, width), np.float16), *tokens)]
    arrays["tokens"] = torch.tensor(np.concatenate(every))
    arrays["token_starts"] = torch.tensor([0, *(len(each) for each in tokens)], dtype=torch.long).cumsum(0)
    threshold = None if math.isinf(rule.threshold) else rule.threshold
    settings = {"rule": "verified", "threshold": threshold, "questions": rule.questions, "model": model}
    return settings, arrays


def _radius(opened: OpenProject) -> tuple[dict[str, Any], Arrays]:
    key_map, clusters = opened.project.key_map, opened.project.clusters()
    settings: Mapping[str, Any] = {"pooling": opened.recipe.key.pooling, "unit": False}
    arrays: Arrays = {}
    if key_map is not None:
        settings = key_map.settings
        arrays = {f"{SCOPE_ARRAYS}{name}": torch.tensor(array) for name, array in key_map.arrays.items()}
    empty = np.empty((0, opened.project.key_dim or 0), np.float32)
    arrays["centers"] = torch.tensor(np.stack([each.center for each in clusters]) if clusters else empty)
    return {"rule": "radius", "pooling": settings["pooling"], "unit": settings["unit"]}, arrays


def _keys(opened: OpenProject, neurons: Sequence[EditView]) -> NDArray[np.float32]:
    if not neurons:
        return np.empty((0, opened.project.key_dim or 0), np.float32)
    return opened.project.keys([edit.edit_id for edit in neurons])


def _rows(opened: OpenProject, neurons: Sequence[EditView], block_ids: Sequence[str]) -> list[dict[str, Any]]:
    index = {block_id: at for at, block_id in enumerate(block_ids)}
    radii = {cluster.number: cluster.radius for cluster in opened.project.clusters()}
    rows = []
    for edit in neurons:
        row: dict[str, Any] = {
            "edit_id": edit.edit_id,
            "prompt": edit.prompt,
            "target": edit.target,
            "subject": edit.record.subject,
            "adapter": edit.block,
            "block": None if edit.block is None else index[edit.block],
        }
        if edit.cluster is not None:
            number = edit.cluster.cluster
            row |= {"cluster": number, "radius": radii[number]}
        rows.append(row)
    return rows


def _reading(opened: OpenProject) -> dict[str, Any]:
    """How prompts are read: model, layers, padding."""
    base, layer = opened.routed.base, opened.recipe.key.layer
    model = text_model_of(base)
    plan = asdict(reading_plan(base, layer))
    if opened.recipe.routing.scope == "radius":
        plan["limit"] = base.max_length
    return plan | {
        "pad_token_id": model.pad_token_id,
        "padding_side": model.padding_side,
        "takes_positions": model.takes_positions,
    }


def _encoder(encoder: SentenceEncoder, folder: Path) -> dict[str, Any]:
    copy_encoder(encoder, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {"folder": ENCODER, "files": files, "fingerprint": encoder.fingerprint}


def _base(opened: OpenProject) -> dict[str, Any]:
    reference = opened.project.base
    return {
        "name_or_path": reference.name_or_path,
        "revision": reference.revision,
        "gguf_file": opened.recipe.model.gguf_file,
        "dtype": opened.recipe.model.dtype,
        "fingerprint": dict(reference.fingerprint),
        "takes_positions": opened.routed.base.takes_positions,
    }


def _tokenizer(opened: OpenProject) -> dict[str, Any]:
    """The settings that a prompt's tokens depend on, besides the tokenizer's files."""
    tokenizer = opened.routed.tokenizer
    return {
        "name_or_path": opened.recipe.model.tokenizer,
        "template": opened.encoder.template,
        "template_day": opened.recipe.model.template_day,
        "truncate": opened.encoder.truncate,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
