"""`serve.json`: the settings with which vLLM, SGLang and LoRAX serve the adapters of an export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.llama_projections import Takes, takes_projections
from melo_cli.exporting.vllm_config import vllm_settings
from melo_cli.models.base_model import dtype_in_memory
from melo_cli.runtime.loading import OpenProject

SERVE = "serve.json"

# An answer asked in another form than its edit was made in may be another one.
_ENDPOINTS = {"chat": "/v1/chat/completions", "none": "/v1/completions"}

_SGLANG_LORA = "https://docs.sglang.io/advanced_features/lora.html"
_LORAX_MODELS = "https://github.com/predibase/lorax#-models"

# In LoRAX any linear layer of a model that it serves takes LoRA.
_LORAX_SERVES = {"llama", "mistral", "mixtral", "gemma", "gemma2", "phi3", "phi", "qwen2", "cohere", "gpt2"}


def write_serving(
    opened: OpenProject, folder: Path, shape: BlockShape | None, block_ids: Sequence[str], base_name: str
) -> None:
    """Write the names and paths of the adapters, and for each engine its flags and whether it takes them.

    `takes_lora` is `yes` or `no` only where the engine's own pages say it of this architecture and these
    modules, and `check` everywhere else. Paths are relative to the folder.
    """
    model_type = str(opened.routed.config.model_type)
    dtype = dtype_in_memory(opened.routed.base, opened.recipe.model)
    adapters = [{"name": name, "path": f"adapters/{name}"} for name in block_ids]
    engines = {
        "vllm": vllm_settings(model_type, shape, len(block_ids), base_name, dtype),
        "sglang": _sglang(model_type, shape, base_name, str(dtype).removeprefix("torch.")),
        "lorax": _lorax(model_type, base_name),
    }
    write_document(opened, folder, shape, base_name, adapters, engines)


def write_document(
    opened: OpenProject,
    folder: Path,
    shape: BlockShape | None,
    base_name: str,
    adapters: Sequence[Mapping[str, Any]],
    engines: Mapping[str, Any],
) -> None:
    """Write `serve.json`: what holds for every engine, and what each needs."""
    document = {
        "base_model": base_name,
        "endpoint": _ENDPOINTS[opened.encoder.template],
        "adapters": list(adapters),
        "rank": shape.rank if shape else 1,
        "target_modules": shape.projections if shape else [],
        "engines": engines,
    }
    (folder / SERVE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sglang(model_type: str, shape: BlockShape | None, base: str, dtype: str) -> dict[str, Any]:
    rank, modules = (shape.rank, shape.projections) if shape else (1, [])
    takes, because = takes_projections("SGLang", model_type, modules)
    return {
        "command": [
            *("python", "-m", "sglang.launch_server", "--model-path", base, "--dtype", dtype),
            *("--enable-lora", "--max-lora-rank", str(rank), "--lora-target-modules", *modules),
        ],
        "adapters": "--lora-paths NAME=PATH ..., or POST /load_lora_adapter {lora_name, lora_path}",
        "request": "the adapter's name is the request's `lora_path`",
        "takes_lora": takes,
        "because": because,
        "source": _SGLANG_LORA,
    }


def _lorax(model_type: str, base: str) -> dict[str, Any]:
    takes: Takes = "yes" if model_type in _LORAX_SERVES else "check"
    because = (
        f"LoRAX lists {model_type} and takes LoRA on any of its linear layers"
        if takes == "yes"
        else f"LoRAX does not list {model_type}"
    )
    return {
        "command": ["lorax-launcher", "--model-id", base],
        "request": "parameters {adapter_id: PATH, adapter_source: local}",
        "takes_lora": takes,
        "because": because,
        "source": _LORAX_MODELS,
    }
