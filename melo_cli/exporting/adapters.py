"""`melo export --format peft`: every block as an ordinary PEFT LoRA adapter, with the route table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from melo_cli.base_model import ModelKind
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from melo_cli.tuner import peft_lora_config
from store.records import Block, edit_id


def export_peft(
    opened: OpenProject,
    folder: Path,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    base_name: str | None = None,
) -> ExportSummary:
    """Write `adapters/<block>/` for every block, and `router/` with keys and route table.

    Args:
        base_name: what the adapters name as their base model; the project's own reference if not given.

    Raises:
        ExportError: the folder exists already, or cannot be written.
    """
    block_ids = opened.project.block_ids()
    with new_folder(folder, overwrite=overwrite, record=opened.describe("peft")) as work:
        with reporter.progress("writing adapters", len(block_ids), "blocks") as progress:
            for block_id in block_ids:
                write_adapter(opened, opened.project.block(block_id), work / "adapters" / block_id, base_name)
                progress.advance()
        _write_router(opened, work / "router")
    return summary("peft", folder, len(block_ids), {})


def write_adapter(opened: OpenProject, block: Block, folder: Path, base_name: str | None = None) -> None:
    """Write one block as `adapter_config.json` and `adapter_model.safetensors`."""
    base = opened.routed.base
    first = next(iter(block.slices.values()))
    layers = opened.routed.tuner.layers
    config = peft_lora_config(
        rank=first.A.shape[0],
        scale=first.scale,
        target_modules=list(block.slices),
        fan_in_fan_out=any(isinstance(layers[name].get_base_layer(), Conv1D) for name in block.slices),
        # Under SEQ_CLS, PEFT would add the classification head to what the adapter must hold.
        task_type=None if base.kind is ModelKind.CLASSIFIER else base.kind.value,
        base_model=base_name or base.reference.name_or_path,
        revision=base.reference.revision,
    )
    weights = {}
    for name, piece in block.slices.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.tensor(piece.A)
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.tensor(piece.B)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def _write_router(opened: OpenProject, folder: Path) -> None:
    """`keys.safetensors` (`keys [n, d]`, `centers [c, d]`) and `routes.json`, which names their rows."""
    clusters = opened.project.clusters()
    rows = []
    keys = []
    for cluster in clusters:
        for number in cluster.members:
            edit = opened.project.edit(edit_id(number))
            keys.append(np.asarray(edit.record.key))
            rows.append(
                {
                    "edit_id": edit.edit_id,
                    "prompt": edit.prompt,
                    "adapter": edit.block,
                    "cluster": cluster.number,
                }
            )
    table = {
        "key": {"layer": opened.recipe.key.layer, "pooling": opened.recipe.key.pooling},
        "clusters": [{"cluster": cluster.number, "radius": cluster.radius} for cluster in clusters],
        "neurons": rows,
    }
    folder.mkdir(parents=True)
    (folder / "routes.json").write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")
    size = opened.project.key_dim or 0
    arrays = {
        "keys": np.stack(keys) if keys else np.zeros((0, size), np.float32),
        "centers": np.stack([c.center for c in clusters]) if clusters else np.zeros((0, size), np.float32),
    }
    save_file({name: torch.tensor(array) for name, array in arrays.items()}, folder / "keys.safetensors")
