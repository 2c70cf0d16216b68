"""GGUF files as base models: dequantized once by transformers, and kept as a checkpoint in the user's cache.

transformers takes half a minute to read the file of even a small model; a checkpoint's weights are mapped.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer

from melo_cli.errors import ModelError
from melo_cli.machine import free_disk
from melo_cli.models.fingerprint import fingerprint
from melo_cli.models.user_cache import user_cache
from melo_cli.units import about_bytes

_VERSION = 1
"""Of what is kept: a checkpoint of another version is not used."""
# Dequantized values are float32; a quantized one takes a byte at most.
_TIMES_LARGER = 8


def checkpoint_of(folder: Path, file: str) -> Path:
    """The folder of the checkpoint that a GGUF file was made into, now or before: float32, safetensors.

    Args:
        folder: the folder of the file.

    Raises:
        ModelError: it cannot be read, or the disk has no room for it.
    """
    path = folder / file
    kept = user_cache() / "gguf" / f"{fingerprint(folder, file)['weights'][:32]}-{_VERSION}"
    if not (kept / "config.json").is_file():
        _require_room(path, kept)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            _convert(folder, file, Path(work) / "model")
            if not kept.exists():  # another process may have been faster
                (Path(work) / "model").rename(kept)
    return kept


def _convert(folder: Path, file: str, target: Path) -> None:
    try:
        # Both draw bars of their own.
        with redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, NotImplementedError) as error:
        raise _unreadable(folder / file, error) from error
    target.mkdir()
    tokenizer.save_pretrained(target)
    config = model.config
    if hasattr(config, "quantization_config"):  # it says how the file was read
        del config.quantization_config
    config.architectures = [type(model).__name__]
    save_torch_state_dict(model.state_dict(), target)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(target)
    config.save_pretrained(target)


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, ImportError | ValueError) and ("required" in reason or "install" in reason):
        return ModelError(
            "GGUF files need the packages gguf and accelerate",
            where=str(path),
            hint="pip install 'melo-cli[gguf]'",
        )
    return ModelError(f"the file cannot be read ({reason})", where=str(path))


def _require_room(path: Path, kept: Path) -> None:
    wanted, free = path.stat().st_size * _TIMES_LARGER, free_disk(kept)
    if wanted > free:
        raise ModelError(
            f"dequantized, the model may need {about_bytes(wanted)}, but {about_bytes(free)} are free "
            f"for {kept}",
            where=str(path),
            hint="name a folder with more space with $MELO_CACHE",
        )
