"""`melo export --format peft`: every block as an ordinary PEFT LoRA adapter, with the router beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from melo_cli.errors import ExportError
from melo_cli.exporting.adapter_folder import write_adapter_folder
from melo_cli.exporting.artefact_check import check_artefact
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.folder import ExportSummary
from melo_cli.exporting.serve_config import write_serving
from melo_cli.models.base_model import ModelKind
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.tuner import peft_lora_config
from melo_store.records import Block, LoraSlice

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def export_peft(
    opened: OpenProject,
    folder: Path,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    base_name: str | None = None,
    dtype: torch.dtype = torch.float32,
    check: int = 0,
) -> ExportSummary:
    """Write `adapters/<block>/` for every block that answers, `router/`, and `serve.json` for servers.

    Args:
        opened: the project, opened.
        folder: where to write the artefact.
        reporter: shows progress.
        overwrite: replace a folder that melo exported.
        base_name: base model that the adapters name; None is the project's own reference.
        dtype: dtype of the adapters' weights.
        check: number of edits, rephrases and unrelated prompts to ask of the artefact before it is put in
            place.

    Raises:
        ArtefactError: the artefact does not answer as the project does.
        ExportError: the folder exists already, or cannot be written.
    """
    name = base_name or opened.routed.base.reference.name_or_path

    def write(block: Block, shape: BlockShape, adapters: Path) -> None:
        write_adapter(opened, block, shape, adapters / block.block_id, name, dtype)

    def finish(work: Path, shape: BlockShape | None, block_ids: Sequence[str]) -> None:
        write_serving(opened, work, shape, block_ids, name)
        if check:
            check_artefact(opened, "peft", work, check, reporter)

    return write_adapter_folder(
        opened, "peft", folder, reporter, overwrite=overwrite, dtype=dtype, write=write, finish=finish
    )


def write_adapter(
    opened: OpenProject, block: Block, shape: BlockShape, folder: Path, base_name: str, dtype: torch.dtype
) -> None:
    """Write one block as `adapter_config.json` and `adapter_model.safetensors`."""
    base = opened.routed.base
    layers = opened.routed.tuner.layers
    config = peft_lora_config(
        rank=shape.rank,
        scale=shape.scale,
        target_modules=list(shape.modules),
        fan_in_fan_out=any(isinstance(layers[name].base_layer, Conv1D) for name in shape.modules),
        # With SEQ_CLS, PEFT would require the classification head in the adapter.
        task_type=None if base.kind is ModelKind.CLASSIFIER else base.kind.value,
        base_model=base_name,
        revision=base.reference.revision,
    )
    weights = {}
    for name in shape.modules:
        piece = shape.fit(block, name)
        weights[f"{_PREFIX}{name}{_A}"] = torch.tensor(piece.A, dtype=dtype)
        weights[f"{_PREFIX}{name}{_B}"] = torch.tensor(piece.B, dtype=dtype)
    folder.mkdir()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def read_adapter(folder: Path) -> Block:
    """The block that `write_adapter` wrote, under the name of its folder.

    Raises:
        ExportError: the adapter cannot be read.
    """
    try:
        weights = load_file(folder / WEIGHTS)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        scale = config["lora_alpha"] / config["r"]
        modules = [name.removeprefix(_PREFIX).removesuffix(_A) for name in weights if name.endswith(_A)]
        slices = {
            name: LoraSlice(weights[f"{_PREFIX}{name}{_A}"], weights[f"{_PREFIX}{name}{_B}"], scale)
            for name in modules
        }
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ExportError(
            f"the adapter cannot be read ({error})", where=str(folder), hint="export the project again"
        ) from error
    return Block(folder.name, slices)
