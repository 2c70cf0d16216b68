"""The linear modules of decoders that are named as Llama's are, which servers know best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

Takes = Literal["yes", "no", "check"]

# Decoders that both vLLM and SGLang serve with LoRA on these modules.
_LLAMA_LIKE = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"}
# vLLM computes modules that read the same input as one, and names only the whole.
_PACKED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "o_proj": "o_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}


def takes_projections(engine: str, model_type: str, projections: Sequence[str]) -> tuple[Takes, str]:
    """Whether an engine takes LoRA on these modules of an architecture, and why.

    Args:
        projections: the last part of the modules' names.
    """
    others = sorted(set(projections) - _PACKED.keys())
    if model_type in _LLAMA_LIKE and not others:
        return "yes", f"{engine} takes LoRA on the attention and feed-forward projections of {model_type}"
    if model_type in _LLAMA_LIKE:
        return "check", f"{', '.join(others)} are none of the projections that {engine} is known to take"
    return (
        "check",
        f"see whether {engine} takes LoRA on {', '.join(projections) or 'these modules'} of {model_type}",
    )


def packed_names(model_type: str, modules: Iterable[str]) -> list[str] | None:
    """vLLM's full names of the modules, each once; None where one of them is not known."""
    if model_type not in _LLAMA_LIKE:
        return None
    packed: dict[str, None] = {}
    for name in modules:
        parent, _, projection = name.rpartition(".")
        if projection not in _PACKED:
            return None
        packed[f"{parent}.{_PACKED[projection]}"] = None
    return list(packed)
