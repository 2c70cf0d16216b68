"""`melo export --format routed`: base, router and blocks in one folder that answers as the project does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from melo_cli.errors import ExportError
from melo_cli.exporting import standalone
from melo_cli.exporting.artefact_check import check_artefact
from melo_cli.exporting.base_copy import base_config, copy_settings, copy_weights, require_checkpoint
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.exporting.model_card import routed_card
from melo_cli.exporting.router_files import ROUTER, write_code, write_router
from melo_cli.exporting.tensor_files import TensorSpec, write_tensors
from melo_cli.models.base_model import BaseModel
from melo_cli.models.fingerprint import ROUTED_CODE
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.projects import EXPORTED_PROJECT

BLOCKS = "blocks.safetensors"
_CODE = f"{ROUTED_CODE}.py"


def export_routed(
    opened: OpenProject, folder: Path, reporter: Reporter, *, overwrite: bool = False, check: int = 0
) -> ExportSummary:
    """Copy the base checkpoint unchanged, and write router, blocks, their code and the snapshot beside it.

    `AutoModelFor...from_pretrained(folder, trust_remote_code=True)` opens it with transformers alone, and
    `melo_cli.load(folder)` with the project's index.

    Args:
        check: number of edits, rephrases and unrelated prompts to ask of the artefact before it is put in
            place.

    Raises:
        ArtefactError: the artefact does not answer as the project does.
        ExportError: the base model has its own code, or the folder exists already or cannot be written.
    """
    base = opened.routed.base
    require_checkpoint(opened)
    _require_no_own_code(base)
    block_ids = opened.live_blocks()
    with new_folder(folder, overwrite=overwrite, record=opened.describe("routed")) as work:
        copy_weights(base, work, reporter)
        copy_settings(base, work, {"auto_map": _auto_map(base.kind.auto_class)})
        write_router(opened, work / ROUTER, block_ids)
        _write_blocks(opened, block_ids, work / ROUTER / BLOCKS, reporter)
        write_code(work, package=False)
        shutil.copyfile(Path(standalone.__file__).parent / _CODE, work / _CODE)
        opened.project.copy_to(work / EXPORTED_PROJECT)
        (work / "README.md").write_text(routed_card(opened, base.kind.auto_class), encoding="utf-8")
        if check:
            check_artefact(opened, "routed", work, check, reporter)
    return summary("routed", folder, len(block_ids), {})


def _auto_map(auto_class: str) -> dict[str, str]:
    """What config.json says so that `auto_class` of transformers finds its class in the folder's code."""
    return {auto_class: f"{ROUTED_CODE}.{auto_class.replace('AutoModel', 'Routed')}"}


def _require_no_own_code(base: BaseModel) -> None:
    if base_config(base).get("auto_map"):
        raise ExportError(
            "the base model has its own code, and an exported folder can hold one model class only",
            where=base.reference.describe(),
            hint="use --format peft",
        )


def _write_blocks(opened: OpenProject, block_ids: Sequence[str], path: Path, reporter: Reporter) -> None:
    """Write `<module>.A [n, rank, in]`, `<module>.B [n, out, rank]` and `<module>.scale [n]`, float32."""
    shape = BlockShape.of(map(opened.project.block, block_ids), opened.recipe.lora.target_modules)
    specs: list[TensorSpec] = []
    for name, (inputs, outputs) in (shape.modules if shape else {}).items():
        assert shape is not None
        sizes = {"A": (shape.rank, inputs), "B": (outputs, shape.rank), "scale": ()}
        specs += [
            TensorSpec(f"{name}.{part}", torch.float32, (len(block_ids), *size))
            for part, size in sizes.items()
        ]

    def pieces(spec: TensorSpec) -> Iterator[Tensor]:
        assert shape is not None
        module, _, part = spec.name.rpartition(".")
        for block_id in block_ids:
            yield torch.tensor(getattr(shape.fit(opened.project.block(block_id), module), part))

    with reporter.progress("writing blocks", sum(spec.nbytes for spec in specs), "bytes") as progress:
        write_tensors(path, specs, pieces, progress.advance)
