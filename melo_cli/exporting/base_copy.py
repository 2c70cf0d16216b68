"""Files of the base model and its sentence encoder in an artefact: weights as they are, settings, tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils.hub import cached_file

from melo_cli.errors import ExportError
from melo_cli.models.base_model import BaseModel
from melo_cli.models.fingerprint import ROUTED_CODE, weight_files
from melo_cli.models.sentence_encoder import POOLING, SentenceEncoder
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

_CHUNK = 1 << 24
_SMALL_FILES = {".json", ".txt", ".model", ".jinja"}


def require_checkpoint(opened: OpenProject) -> None:
    """Refuse to copy a base model that is a GGUF file.

    Raises:
        ExportError: the base is a GGUF file, which could only be written dequantized.
    """
    if opened.recipe.model.gguf_file is not None:
        raise ExportError(
            "the base model is a GGUF file, which cannot be written as safetensors without dequantizing it",
            where=opened.recipe.model.described,
            hint="use --format peft, or make the project on the model's safetensors checkpoint",
        )


def copy_weights(base: BaseModel, work: Path, reporter: Reporter) -> None:
    """Copy the weight files byte for byte; the links of a hub cache are followed."""
    files = weight_files(base.folder)
    with reporter.progress("copying", sum(path.stat().st_size for path in files), "bytes") as progress:
        for path in files:
            with path.open("rb") as source, (work / path.name).open("wb") as copy:
                while chunk := source.read(_CHUNK):
                    copy.write(chunk)
                    progress.advance(len(chunk))


def copy_settings(base: BaseModel, work: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Copy the other files of a checkpoint: config with `changes`, generation config, tokenizer, code."""
    config = base_config(base)
    # Python files belong to the base only if its config names them: they may be those of a routed folder.
    suffixes = _SMALL_FILES | ({".py"} if config.get("auto_map") else set())
    for path in base.folder.iterdir():
        if path.is_file() and path.suffix in suffixes:
            shutil.copyfile(path, work / path.name)
    config |= changes or {}
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if base.kind.generates and not (work / "generation_config.json").is_file():
        GenerationConfig.from_model_config(base.model.config).save_pretrained(work)
    base.tokenizer.save_pretrained(work)


def copy_encoder(encoder: SentenceEncoder, folder: Path) -> None:
    """Copy the files that a sentence encoder is loaded from."""
    source = Path(encoder.name)
    if not source.is_dir():
        source = Path(str(cached_file(encoder.name, "config.json"))).parent
    small = (path for path in source.iterdir() if path.is_file() and path.suffix in _SMALL_FILES)
    folder.mkdir()
    for path in (*small, *weight_files(source)):
        shutil.copyfile(path, folder / path.name)
    pooling = source / POOLING
    if pooling.is_file():
        (folder / POOLING).parent.mkdir()
        shutil.copyfile(pooling, folder / POOLING)


def base_config(base: BaseModel) -> dict[str, Any]:
    """The base's config.json; if the base is a routed folder, without the reference to its code."""
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    if ROUTED_CODE in str(config.get("auto_map")):
        del config["auto_map"]
    return config
