"""How llama.cpp names a model's modules, and in which order it has the rows of their weights."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from melo_cli.errors import ExportError
from melo_cli.models.base_model import BaseModel, ModelKind

# llama.cpp's name of an architecture, by `model_type`. For each, llama.cpp was seen to give the logits of
# transformers under an adapter on all linear modules.
_ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "granite": "granite",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "starcoder2": "starcoder2",
    "gpt2": "gpt2",
}
# These rotate neighbouring features of a head, where transformers rotates its two halves.
_INTERLEAVED = {"llama", "granite", "smollm3"}


@dataclass(frozen=True)
class GgufLayout:
    """llama.cpp's view of a base model.

    Attributes:
        architecture: llama.cpp's name of it.
        names: takes a module's name in transformers to the name of its tensor.
        query_heads: heads of `q_proj` where its rows are in another order; else 0.
        key_heads: the same of `k_proj`.
    """

    architecture: str
    names: gguf.TensorNameMap
    query_heads: int
    key_heads: int

    @classmethod
    def of(cls, base: BaseModel, config: PreTrainedConfig) -> GgufLayout:
        """The layout of a base model.

        Raises:
            ExportError: adapters of its architecture are not known to be right.
        """
        known = _ARCHITECTURES.get(str(config.model_type))
        if known is None or base.kind is not ModelKind.CAUSAL:
            raise ExportError(
                f"melo writes no GGUF adapters for {type(base.model).__name__} (architecture "
                f"{config.model_type})",
                where=base.reference.describe(),
                hint=f"use --format peft; GGUF adapters are for text generation with {_listed()}",
            )
        names = gguf.get_tensor_name_map(_number(known), config.num_hidden_layers)
        if known not in _INTERLEAVED:
            return cls(known, names, 0, 0)
        return cls(known, names, config.num_attention_heads, config.num_key_value_heads)

    def tensor(self, module: str) -> str:
        """The name of a module's weight in a GGUF file.

        Raises:
            ExportError: llama.cpp has no such tensor.
        """
        name = self.names.get_name(module)
        if name is None:
            raise ExportError(
                f"llama.cpp has no tensor for module {module} of architecture {self.architecture}",
                where="melo export",
                hint="use --format peft",
            )
        return f"{name}.weight"

    def rows(self, module: str, count: int) -> NDArray[np.intp]:
        """For each row of the weight in a GGUF file, the row of transformers' weight that it is.

        Args:
            count: the number of rows.
        """
        heads = {"q_proj": self.query_heads, "k_proj": self.key_heads}.get(module.rpartition(".")[2], 0)
        order = np.arange(count)
        return order.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1) if heads else order


def _number(architecture: str) -> gguf.MODEL_ARCH:
    for number, name in gguf.MODEL_ARCH_NAMES.items():
        if name == architecture:
            return number
    raise ExportError(
        f"the installed package gguf does not know architecture {architecture}",
        where="melo export",
        hint="pip install --upgrade gguf",
    )


def _listed() -> str:
    return ", ".join(sorted(_ARCHITECTURES))
