"""`melo export --format gguf`: every block as a LoRA adapter for llama.cpp, with the router beside them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from melo_cli.errors import ExportError
from melo_cli.exporting.adapter_folder import write_adapter_folder
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.folder import ExportSummary
from melo_cli.exporting.model_card import gguf_card
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.records import Block


def export_gguf(
    opened: OpenProject,
    folder: Path,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    base_name: str | None = None,
    dtype: torch.dtype = torch.float32,
    check: int = 0,
) -> ExportSummary:
    """Write `adapters/<block>.gguf` for every block that answers, `router/`, `serve.json` and a README.

    Args:
        opened: the project, opened.
        folder: where to write the artefact.
        reporter: shows progress.
        overwrite: replace a folder that melo exported.
        base_name: the base model's GGUF file in llama-server's command; None is the project's own.
        dtype: dtype of the adapters' weights.
        check: number of edits, rephrases and unrelated prompts to ask of the artefact before it is put in
            place.

    Raises:
        ArtefactError: the artefact is not what the project has, or does not answer as it does.
        ExportError: the package gguf is missing, the base's architecture or a module is not supported, or the
            folder exists already or cannot be written.
    """
    _require_gguf()
    from melo_cli.exporting.llama_cpp.check import check_adapters
    from melo_cli.exporting.llama_cpp.files import AdapterFiles
    from melo_cli.exporting.llama_cpp.layout import GgufLayout
    from melo_cli.exporting.llama_cpp.server import base_file, write_llama_serving

    files = AdapterFiles(GgufLayout.of(opened.routed.base, opened.routed.config), dtype)
    base = base_file(opened, base_name)

    def write(block: Block, shape: BlockShape, adapters: Path) -> None:
        files.write(block, shape, adapters / f"{block.block_id}.gguf")

    def finish(work: Path, shape: BlockShape | None, block_ids: Sequence[str]) -> None:
        write_llama_serving(opened, work, shape, block_ids, base)
        checked = "nothing was checked"
        if check:
            checked = check_adapters(opened, work, shape, block_ids, files, check, reporter)
        (work / "README.md").write_text(gguf_card(opened, base, checked), encoding="utf-8")

    return write_adapter_folder(
        opened, "gguf", folder, reporter, overwrite=overwrite, dtype=dtype, write=write, finish=finish
    )


def _require_gguf() -> None:
    if find_spec("gguf") is None:
        raise ExportError(
            "GGUF adapters need the package gguf",
            where="melo export",
            hint="pip install 'melo-cli[gguf]'",
        )
