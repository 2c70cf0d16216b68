"""The sentence encoder: a small model that reads prompts for their route instead of the base model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from melo_cli.errors import ModelError
from melo_cli.models.fingerprint import fingerprint

POOLING = "1_Pooling/config.json"
_POOLINGS = {"pooling_mode_cls_token": "first", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence encoder ready to read, on the CPU: it uses no memory of an accelerator.

    Attributes:
        pooling: what stands for a text: its `first` or `last` token, or the `mean` over all.
        fingerprint: sha256 by part, as of a base model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    name: str
    fingerprint: dict[str, str]

    def layers(self) -> tuple[str, str]:
        """Names of the modules that give the lowest and the highest states."""
        stack = next(
            (name, len(module))
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList)
        )
        lowest = "embeddings" if hasattr(self.model, "embeddings") else _embeddings(self.model)
        return lowest, f"{stack[0]}.{stack[1] - 1}"


def load_sentence_encoder(name: str) -> SentenceEncoder:
    """Load a sentence encoder by hub id or folder; its pooling is the one of its own configuration.

    Raises:
        ModelError: there is no such encoder, or it writes text.
    """
    path = Path(name).expanduser()
    folder = path.resolve() if path.is_dir() else None
    source = str(folder) if folder is not None else name
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
        located = folder or Path(str(cached_file(source, "config.json"))).parent
        settings = _pooling_settings(source, located)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the sentence encoder cannot be loaded ({reason})",
            where="key.encoder",
            hint="use a folder or hub id with safetensors weights, or key.encoder=null",
        ) from error
    if model.config.is_encoder_decoder or not tokenizer.is_fast:
        raise ModelError(
            "this is not a sentence encoder", where="key.encoder", hint="use an encoder of BERT's type"
        )
    pooling = next((kind for mode, kind in _POOLINGS.items() if settings.get(mode)), "mean")
    model.eval().requires_grad_(False)
    return SentenceEncoder(model, tokenizer, pooling, source, fingerprint(located))


def _pooling_settings(source: str, folder: Path) -> dict[str, Any]:
    path = folder / POOLING
    if not path.is_file() and not Path(source).is_dir():
        options = {"_raise_exceptions_for_missing_entries": False}
        cached = cached_file(source, POOLING, **options)
        path = Path(str(cached)) if cached else path
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings


def _embeddings(model: PreTrainedModel) -> str:
    embeddings = model.get_input_embeddings()
    return str(next(name for name, module in model.named_modules() if module is embeddings))
