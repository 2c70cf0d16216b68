"""A folder of adapters, one for each block that answers, with the router beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.exporting.router_files import ROUTER, write_code, write_router
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.records import Block

ADAPTERS = "adapters"

WriteAdapter = Callable[[Block, BlockShape, Path], None]
Finish = Callable[[Path, BlockShape | None, Sequence[str]], None]


def write_adapter_folder(
    opened: OpenProject,
    format_name: str,
    folder: Path,
    reporter: Reporter,
    *,
    overwrite: bool,
    dtype: torch.dtype,
    write: WriteAdapter,
    finish: Finish,
) -> ExportSummary:
    """Write `adapters/` and `router/`. All adapters have one rank, one alpha and one list of target modules.

    Args:
        opened: the project, opened.
        format_name: the name of the format.
        folder: where to write the artefact.
        reporter: shows progress.
        overwrite: replace a folder that melo exported.
        dtype: dtype of the adapters' weights.
        write: writes a block in the common shape into the folder of the adapters.
        finish: writes what else belongs into the artefact and checks it, before it is put in place; it gets
            the unfinished folder, the common shape (None without blocks) and the ids of the blocks.

    Raises:
        ExportError: the folder exists already, or cannot be written.
    """
    block_ids = opened.live_blocks()
    shape = BlockShape.of(map(opened.project.block, block_ids), opened.recipe.lora.target_modules)
    with new_folder(folder, overwrite=overwrite, record=opened.describe(format_name)) as work:
        (work / ADAPTERS).mkdir()
        if shape is not None:
            size = shape.values * dtype.itemsize
            with reporter.progress("writing adapters", size * len(block_ids), "bytes") as progress:
                for block_id in block_ids:
                    write(opened.project.block(block_id), shape, work / ADAPTERS)
                    progress.advance(size)
        write_router(opened, work / ROUTER, block_ids)
        write_code(work / ROUTER, package=True)
        finish(work, shape, block_ids)
    return summary(format_name, folder, len(block_ids), {})
