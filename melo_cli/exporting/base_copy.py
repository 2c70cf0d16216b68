"""The base model's own files in an artefact: settings, tokenizer, weights as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from melo_cli.base_model import BaseModel
from melo_cli.fingerprint import ROUTED_CODE, weight_files
from melo_cli.reporter import Reporter

_CHUNK = 1 << 24
_SMALL_FILES = {".json", ".txt", ".model", ".py", ".jinja"}


def copy_weights(base: BaseModel, work: Path, reporter: Reporter) -> None:
    """Copy the weight files byte for byte; hub caches hold links, and what they lead to is copied."""
    files = weight_files(base.folder)
    with reporter.progress("copying", sum(path.stat().st_size for path in files), "bytes") as progress:
        for path in files:
            with path.open("rb") as source, (work / path.name).open("wb") as copy:
                while chunk := source.read(_CHUNK):
                    copy.write(chunk)
                    progress.advance(len(chunk))


def copy_settings(base: BaseModel, work: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Copy what goes with the weights: config with `changes`, generation config, tokenizer, code.

    A change to None takes the setting out.
    """
    for path in base.folder.iterdir():
        if path.is_file() and path.suffix in _SMALL_FILES:
            shutil.copyfile(path, work / path.name)
    config = base_config(base)
    for name, value in (changes or {}).items():
        config[name] = value
    kept = {name: value for name, value in config.items() if name not in (changes or {}) or value is not None}
    (work / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if base.kind.generates and not (work / "generation_config.json").is_file():
        GenerationConfig.from_model_config(base.model.config).save_pretrained(work)
    base.tokenizer.save_pretrained(work)


def base_config(base: BaseModel) -> dict[str, Any]:
    """The base's config.json; where the base is itself a routed folder, without the code of that."""
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    if ROUTED_CODE in str(config.get("auto_map")):
        del config["auto_map"]
    return config
