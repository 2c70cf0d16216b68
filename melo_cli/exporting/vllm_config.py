"""The command line with which vLLM serves the adapters of an export."""

from __future__ import annotations

from typing import Any

import torch

from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.llama_projections import Takes, packed_names, takes_projections

# The values that --max-lora-rank takes.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Each adapter of a batch needs a slot of its own: with one slot, requests for other adapters wait.
_MOST_SLOTS = 16
# Memory for adapters between requests; an adapter that it does not hold is read from disk again.
_CPU_BYTES = 4 << 30

_MODELS = "https://docs.vllm.ai/en/latest/models/supported_models.html"


def vllm_settings(
    model_type: str, shape: BlockShape | None, adapters: int, base: str, dtype: torch.dtype
) -> dict[str, Any]:
    """vLLM's part of `serve.json`.

    Args:
        adapters: the number of adapters.
        base: the base model as vLLM is to load it; adapters must name the same.
        dtype: dtype in which the project holds the base.
    """
    takes, because = _takes(model_type, shape)
    packed = packed_names(model_type, shape.modules) if shape else None
    dropped = (
        "vLLM drops the modules of an adapter that are not in this list; the list is complete"
        if packed
        else "left out, since vLLM's own names of these modules are not known here; then it takes all modules"
    )
    return {
        # Adapters by the thousand do not fit on a command line: vLLM fetches one when its name is asked for.
        "environment": {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true",
            "VLLM_LORA_RESOLVER_CACHE_DIR": "adapters",
        },
        "command": [
            *("vllm", "serve", base, "--dtype", str(dtype).removeprefix("torch."), "--enable-lora"),
            *_sizes(shape, adapters, dtype),
            *(("--lora-target-modules", *packed) if packed else ()),
        ],
        "--lora-target-modules": dropped,
        "request": "the adapter's name is the request's `model`",
        "takes_lora": takes,
        "because": because,
        "source": _MODELS,
    }


def _sizes(shape: BlockShape | None, adapters: int, dtype: torch.dtype) -> list[str]:
    rank, values = (shape.rank, shape.values) if shape else (1, 1)
    allowed = next((limit for limit in _RANKS if limit >= rank), rank)
    slots = max(1, min(_MOST_SLOTS, adapters))
    cached = max(slots, min(adapters, _CPU_BYTES // (values * dtype.itemsize)))
    return [
        *("--max-lora-rank", str(allowed)),
        *("--max-loras", str(slots)),
        *("--max-cpu-loras", str(cached)),
    ]


def _takes(model_type: str, shape: BlockShape | None) -> tuple[Takes, str]:
    if shape is not None and shape.rank > _RANKS[-1]:
        return "no", f"vLLM takes ranks up to {_RANKS[-1]}, and these have {shape.rank}"
    if model_type == "gpt2":
        return "no", "vLLM serves GPT-2 without LoRA"
    if model_type in ("t5", "bert"):
        return "no", f"vLLM has no LoRA for {model_type.upper()}"
    return takes_projections("vLLM", model_type, shape.projections if shape else [])
