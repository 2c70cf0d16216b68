"""`serve.json`: the settings with which vLLM, SGLang and LoRAX serve the adapters of an export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.runtime.loading import OpenProject

SERVE = "serve.json"

# The values that vLLM's --max-lora-rank takes.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

Takes = Literal["yes", "no", "check"]

_VLLM_MODELS = "https://docs.vllm.ai/en/latest/models/supported_models.html"
_SGLANG_LORA = "https://docs.sglang.io/advanced_features/lora.html"
_LORAX_MODELS = "https://github.com/predibase/lorax#-models"

# Decoders whose projections are named as Llama's are, and that both vLLM and SGLang serve with LoRA on them.
_LLAMA_LIKE = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"}
_LLAMA_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
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
    modules = sorted({name.rpartition(".")[2] for name in shape.modules}) if shape else []
    rank = shape.rank if shape else 1
    document = {
        "base_model": base_name,
        "adapters": [{"name": name, "path": f"adapters/{name}"} for name in block_ids],
        "rank": rank,
        "target_modules": modules,
        "engines": {
            "vllm": _vllm(model_type, modules, rank, base_name),
            "sglang": _sglang(model_type, modules, rank, base_name),
            "lorax": _lorax(model_type, base_name),
        },
    }
    (folder / SERVE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _vllm(model_type: str, modules: Sequence[str], rank: int, base: str) -> dict[str, Any]:
    allowed = next((limit for limit in _VLLM_RANKS if limit >= rank), None)
    takes, because = _takes_llama_projections("vLLM", model_type, modules)
    if model_type == "gpt2":
        takes, because = "no", "vLLM serves GPT-2 without LoRA"
    elif model_type in ("t5", "bert"):
        takes, because = "no", f"vLLM has no LoRA for {model_type.upper()}"
    if allowed is None:
        takes, because = "no", f"vLLM takes ranks up to {_VLLM_RANKS[-1]}, and these have {rank}"
    return {
        # Adapters by the thousand do not fit on a command line: vLLM fetches one when its name is asked for.
        "environment": {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true",
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": "adapters",
        },
        "command": ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(allowed or rank)],
        "request": "the adapter's name is the request's `model`",
        "takes_lora": takes,
        "because": because,
        "source": _VLLM_MODELS,
    }


def _sglang(model_type: str, modules: Sequence[str], rank: int, base: str) -> dict[str, Any]:
    takes, because = _takes_llama_projections("SGLang", model_type, modules)
    return {
        "command": [
            *("python", "-m", "sglang.launch_server", "--model-path", base, "--enable-lora"),
            *("--max-lora-rank", str(rank), "--lora-target-modules", *modules),
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


def _takes_llama_projections(engine: str, model_type: str, modules: Sequence[str]) -> tuple[Takes, str]:
    others = sorted(set(modules) - _LLAMA_PROJECTIONS)
    if model_type in _LLAMA_LIKE and not others:
        return "yes", f"{engine} takes LoRA on the attention and feed-forward projections of {model_type}"
    if model_type in _LLAMA_LIKE:
        return "check", f"{', '.join(others)} are none of the projections that {engine} is known to take"
    return (
        "check",
        f"see whether {engine} takes LoRA on {', '.join(modules) or 'these modules'} of {model_type}",
    )
