"""Tells one base model from another by its files, fast enough to do at every start."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from melo_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Enough to meet any change that reaches a whole tensor (fine-tuning, merging, casting).
_PIECES_A_TENSOR = 16
_PIECE_BYTES = 256
_PIECES_A_FILE = 4096
# What loading writes into a config without changing the model.
_INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
# Letters of several scripts and cases, numbers, white space, marks: where tokenizers differ.
_SAMPLE = (
    "The capital of Kazakhstan is Astana, isn't it?  It has 1,350,000 inhabitants (2023).",
    "def f(x):\n\treturn {'a': [x**2, 0.5e-3]}  # TODO",
    "Čeština, Ελληνικά, русский, العربية, 中文, 日本語, 한국어, हिन्दी, ₤ € 😀",
    "",
)
# The code that `melo export --format routed` lays beside a base and names in its config.
ROUTED_CODE = "routed_modeling"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Which model it is, without the model.

    Attributes:
        name_or_path: hub id or folder.
        revision: of the hub repository, where one was asked for.
        fingerprint: sha256 by part, such as ``{"config": ..., "weights": ...}``.
    """

    name_or_path: str
    revision: str | None
    fingerprint: Mapping[str, str]

    def describe(self) -> str:
        """Name and revision in a few words."""
        return f"{self.name_or_path}@{self.revision}" if self.revision else self.name_or_path


def fingerprint(folder: Path, gguf_file: str | None = None) -> dict[str, str]:
    """`{"config": sha256, "weights": sha256}` of the checkpoint in `folder`; of a GGUF file the latter alone.

    The config part covers every setting but the incidental ones. The weights part covers the name, size
    and header of every weight file and, inside, sixteen pieces of 256 bytes of each tensor: a change to
    part of one tensor can go unseen, one to a whole tensor cannot.

    Raises:
        ModelError: the folder has no config or no weights.
    """
    if gguf_file is not None:
        return {"weights": _weights_hash([folder / gguf_file])}
    return {"config": _config_hash(folder / "config.json"), "weights": _weights_hash(weight_files(folder))}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what a tokenizer makes of a sample of texts, and of the token that ends one."""
    sample = json.dumps([[tokenizer(text).input_ids for text in _SAMPLE], tokenizer.eos_token_id])
    return hashlib.sha256(sample.encode("utf-8")).hexdigest()


def text_hash(text: object) -> str:
    """sha256 of a text, or of a mapping of texts."""
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode("utf-8")).hexdigest()


def _config_hash(path: Path) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"config.json cannot be read ({error})", where=str(path.parent)) from error
    settings = {name: value for name, value in config.items() if name not in _INCIDENTAL}
    if str(settings.get("auto_map")).count(ROUTED_CODE):
        del settings["auto_map"]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files: safetensors if there are any, else PyTorch's own format."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        paths = sorted(folder.glob(pattern))
        if paths:
            return paths
    raise ModelError(
        "the folder has no model*.safetensors or pytorch_model*.bin",
        where=str(folder),
        hint="use a folder written by save_pretrained",
    )


def _weights_hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            for offset, length in _pieces(file, size, path.suffix == ".safetensors"):
                file.seek(offset)
                digest.update(file.read(length))
    return digest.hexdigest()


def _pieces(file: BinaryIO, size: int, is_safetensors: bool) -> Iterator[tuple[int, int]]:
    if not is_safetensors:
        yield from _evenly_spaced(0, size, _PIECES_A_FILE)
        return
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(header_bytes))
    yield 0, 8 + header_bytes
    for name in sorted(header.keys() - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        yield from _evenly_spaced(8 + header_bytes + begin, 8 + header_bytes + end, _PIECES_A_TENSOR)


def _evenly_spaced(begin: int, end: int, pieces: int) -> Iterator[tuple[int, int]]:
    step = max((end - begin) // pieces, _PIECE_BYTES)
    for offset in range(begin, end, step):
        yield offset, min(_PIECE_BYTES, end - offset)
