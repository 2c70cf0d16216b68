"""`melo export --merge`: a plain checkpoint whose weights hold the sum of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from melo_cli.evaluation import answer_anew, answer_probes, collect_probes, metrics
from melo_cli.exporting.card import merged_card
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from store.project import Project

_FIRED = ("fired_edits", "fired_rephrases", "fired_unrelated")


def export_merged(
    opened: OpenProject, folder: Path, reporter: Reporter, *, overwrite: bool = False
) -> ExportSummary:
    """Add every block to the base's weights, measure what that keeps, and write the checkpoint.

    A dense model has no router: each block acts on every prompt, so edits leak into each other and into
    everything else. The figures before and after are returned and stand in the model card.
    The model in `opened` holds the merged weights afterwards.

    Raises:
        ExportError: the folder exists already, or cannot be written.
    """
    with new_folder(folder, overwrite=overwrite, record=opened.describe("merged")) as work:
        base = opened.routed.base
        routed = answer_probes(opened, collect_probes(opened, reporter), reporter)
        add_blocks_to_weights(opened)
        merged = answer_anew(opened, routed, reporter)
        figures = {
            "base": metrics(routed, base.kind, edited=False),
            "routed": metrics(routed, base.kind, edited=True),
            # A merged model has no router: nothing fires in it.
            "merged": metrics(merged, base.kind, edited=True) | dict.fromkeys(_FIRED),
        }
        opened.routed.tuner.unload()
        base.model.save_pretrained(work)
        base.tokenizer.save_pretrained(work)
        (work / "README.md").write_text(merged_card(opened, figures), encoding="utf-8")
    return summary("merged", folder, len(opened.live_blocks()), figures)


@torch.no_grad()
def add_blocks_to_weights(opened: OpenProject) -> None:
    """Add the sum of all live blocks to the target modules, summed in float32 and cast once."""
    for name, layer in opened.routed.tuner.layers.items():
        module = layer.get_base_layer()
        change = summed_change(opened.project, opened.live_blocks(), name)
        if change is not None:
            _add(module, change)


def summed_change(project: Project, block_ids: Sequence[str], module: str) -> Tensor | None:
    """Sum of `scale * B @ A` over blocks, `[out, in]` float32; None where no block has the module."""
    total: Any = None
    for block_id in block_ids:
        piece = project.block(block_id).slices.get(module)
        if piece is not None:
            delta = piece.scale * (piece.B @ piece.A)
            total = delta if total is None else total + delta
    return None if total is None else torch.from_numpy(total)


def _add(module: nn.Module, change: Tensor) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    change = change.to(weight.device)
    total = weight.float() + (change.T if isinstance(module, Conv1D) else change)
    weight.copy_(total.to(weight.dtype))
