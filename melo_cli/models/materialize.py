"""Brings a checkpoint's weights into memory of our own, without a second whole copy."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch
from torch import Tensor, nn

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


def materialize(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Copy every weight out of the checkpoint file, tensor by tensor, as `dtype` or as it is (None).

    transformers hands out weights on a CPU as views of the memory-mapped file. The system may drop such
    pages when memory is short and read them again at every pass; and where the loader itself converts, the
    file's pages count beside the converted weights until the last one is done (1.5 times the model's size
    for bfloat16 to float32). Tied weights stay tied. No more than one tensor is held beyond the weights.
    """
    mapped_files = _mapped_files()
    for tensor in (*model.parameters(), *model.buffers()):
        mapped = tensor.data
        converted = dtype if dtype is not None and mapped.is_floating_point() else mapped.dtype
        tensor.data = mapped.to(converted, copy=True)
        _drop_pages(mapped, mapped_files)


def _mapped_files() -> list[range]:
    """The address ranges of this process that are files; none where the system (not Linux) does not tell."""
    if not _MAPS.exists():
        return []
    lines = [line.split(maxsplit=5) for line in _MAPS.read_text().splitlines()]
    bounds = [fields[0].split("-") for fields in lines if len(fields) == 6 and fields[5].startswith("/")]
    return [range(int(begin, 16), int(end, 16)) for begin, end in bounds]


def _drop_pages(tensor: Tensor, mapped_files: list[range]) -> None:
    """Give back the pages wholly inside a tensor that is part of a file; memory of no file would be lost."""
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin and any(begin in file and end - 1 in file for file in mapped_files):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
