"""Reads and writes weight files one tensor at a time, so that no checkpoint is in memory as a whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from melo_cli.errors import ExportError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The format requires the data to begin at a multiple of this.
_ALIGNMENT = 8

Advance = Callable[[int], None]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a tensor, without its data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


class Shard(Protocol):
    """One weight file of a checkpoint."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """What is in it, by name."""

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""


def open_shard(path: Path) -> Shard:
    """Open a safetensors file, or a pickled PyTorch file (tensors only; no code is executed)."""
    return SafetensorsShard(path) if path.suffix == ".safetensors" else _PickledShard(path)


class SafetensorsShard:
    """A safetensors file, read by ordinary file reads: a memory map would keep every page that was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        self._start = 8 + length
        header.pop("__metadata__", None)
        self._offsets = {name: int(entry["data_offsets"][0]) for name, entry in header.items()}
        self._tensors = {
            name: TensorSpec(name, _dtype(entry["dtype"], path), tuple(entry["shape"]))
            for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        }

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self._tensors

    def read(self, name: str) -> Tensor:
        spec = self._tensors[name]
        data = bytearray(spec.nbytes)
        with self._path.open("rb") as file:
            file.seek(self._start + self._offsets[name])
            file.readinto(data)
        if not data:
            return torch.empty(spec.shape, dtype=spec.dtype)
        return torch.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)


class _PickledShard:
    def __init__(self, path: Path) -> None:
        self._state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        self._tensors = {
            name: TensorSpec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self._state.items()
        }

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self._tensors

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._state[name]
        return tensor.clone()


def write_tensors(
    path: Path, specs: Sequence[TensorSpec], data: Callable[[TensorSpec], Iterator[Tensor]], advance: Advance
) -> None:
    """Write a safetensors file in the order of `specs`.

    Args:
        path: the file.
        specs: the tensors to write.
        data: yields a tensor's rows in pieces, in the dtype of its spec.
        advance: called with the number of bytes written.
    """
    with path.open("wb") as file:
        _write_header(file, specs)
        for spec in specs:
            written = 0
            for piece in data(spec):
                view = piece.contiguous().reshape(-1).view(torch.uint8).numpy().data
                written += file.write(view)
                advance(len(view))
            if written != spec.nbytes:
                raise ValueError(f"{spec.name} has {written} bytes, but its shape needs {spec.nbytes}")


def _write_header(file: BinaryIO, specs: Sequence[TensorSpec]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        header[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)


def _dtype(name: str, path: Path) -> torch.dtype:
    if name not in DTYPES:
        raise ExportError(
            f"tensors of type {name} are not supported", where=str(path), hint="use another checkpoint"
        )
    return DTYPES[name]
