"""Adapters for the engine behind this one: written once, under a name that says what is in them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import torch

from melo_cli.exporting.adapters import write_adapter
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.runtime.loading import OpenProject
from melo_store.records import Block

WriteAdapter = Callable[[Block, Path], None]


def adapter_writer(opened: OpenProject, base_name: str) -> WriteAdapter:
    """Writes a block of a project as an adapter, into a folder that is not there yet.

    Args:
        opened: the project; only its layout is used.
        base_name: the base model that the adapters name.
    """

    def write(block: Block, folder: Path) -> None:
        shape = BlockShape.of([block], opened.recipe.lora.target_modules)
        assert shape is not None, "a block has modules"
        write_adapter(opened, block, shape, folder, base_name, torch.float32)

    return write


class AdapterFolder:
    """Adapters of blocks, each in a folder of its own, which is never changed or removed.

    A server that may name a folder that is gone dies of it, and one that has cached answers of other weights
    under the same name gives these: so the name holds the checksum of the weights.

    Args:
        folder: where the adapters lie, as the server behind this one sees it too.
        write: writes one.

    Attributes:
        folder: where the adapters lie.
    """

    def __init__(self, folder: Path, write: WriteAdapter) -> None:
        self.folder = folder
        self._write = write
        self._names: dict[str, str] = {}

    def name(self, block: Block) -> str:
        """The adapter's name: the block's id and a checksum of its weights, made once for each block."""
        if block.block_id not in self._names:
            self._names[block.block_id] = f"{block.block_id}-{_checksum(block)[:12]}"
        return self._names[block.block_id]

    def path(self, block: Block) -> Path:
        """The adapter's folder, written if it is not there yet."""
        folder = self.folder / self.name(block)
        if folder.is_dir():
            return folder
        self.folder.mkdir(parents=True, exist_ok=True)
        work = Path(mkdtemp(prefix=".writing-", dir=self.folder))
        try:
            self._write(block, work / "adapter")
            (work / "adapter").replace(folder)
        except OSError:
            if not folder.is_dir():  # else another server has written it meanwhile
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return folder


def _checksum(block: Block) -> str:
    digest = hashlib.sha256()
    for module, part in block.slices.items():
        digest.update(module.encode())
        digest.update(part.A.tobytes())
        digest.update(part.B.tobytes())
        digest.update(repr(part.scale).encode())
    return digest.hexdigest()
