"""`serve.json` of GGUF adapters: llama-server's command line, and what a route puts into a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from melo_cli.exporting.adapter_folder import ADAPTERS
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.serve_config import write_document
from melo_cli.models.base_model import dtype_in_memory
from melo_cli.runtime.loading import OpenProject

# Stands in the command where the project's base is no GGUF file.
PLACEHOLDER = "BASE.gguf"

_OUTTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_SERVER = "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md"


def base_file(opened: OpenProject, named: str | None) -> str:
    """The GGUF file of the base model: as named, else the project's own, else a placeholder."""
    return named or str(opened.routed.base.gguf or PLACEHOLDER)


def write_llama_serving(
    opened: OpenProject, folder: Path, shape: BlockShape | None, block_ids: Sequence[str], base: str
) -> None:
    """Write the adapters in the order of the command line, which gives them their ids."""
    adapters = [
        {"name": name, "path": f"{ADAPTERS}/{name}.gguf", "id": number}
        for number, name in enumerate(block_ids)
    ]
    settings: dict[str, Any] = {
        **_conversion(opened, base),
        # With a scale of 0, a request that names no adapter is answered by the base model.
        "command": [
            *("llama-server", "-m", base),
            *(("--lora-scaled", ",".join(f"{each['path']}:0" for each in adapters)) if adapters else ()),
        ],
        "request": "`lora` of the route goes into the body of each request, also of those to the base model",
        "routes": {
            "base": {"lora": [{"id": 0, "scale": 0.0}] if adapters else []},
            **{each["name"]: {"lora": [{"id": each["id"], "scale": 1.0}]} for each in adapters},
        },
        "takes_lora": "yes",
        "because": "melo writes adapters only of architectures whose modules all take LoRA in llama.cpp",
        "source": _SERVER,
    }
    write_document(opened, folder, shape, base, adapters, {"llama-server": settings})


def _conversion(opened: OpenProject, base: str) -> dict[str, Any]:
    """How the base becomes the GGUF file of the command, where there is none yet."""
    if base != PLACEHOLDER:
        return {}
    reference = opened.routed.base.reference.name_or_path
    outtype = _OUTTYPES[dtype_in_memory(opened.routed.base, opened.recipe.model)]
    script = ("python", "convert_hf_to_gguf.py", reference)
    return {"convert": [*script, "--outfile", PLACEHOLDER, "--outtype", outtype]}
