"""`melo export --format merged`: one ordinary checkpoint whose weights hold the edits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from melo_cli.errors import ArtefactError, ExportError, ProjectError
from melo_cli.exporting.base_copy import require_checkpoint
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.exporting.merging.checkpoint import require_unquantized, write_checkpoint
from melo_cli.exporting.merging.methods import Merge, MergeMethod, Sum, merge
from melo_cli.exporting.merging.retention import Figures, measure
from melo_cli.exporting.merging.training_examples import ExampleSettings
from melo_cli.exporting.model_card import merged_card
from melo_cli.exporting.worker import run_in_worker
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject


@dataclass(frozen=True)
class Floors:
    """The least figures that a merge must reach, as shares from 0 to 1; None sets no floor.

    Attributes:
        edit_success: edit success by greedy generation.
        agreement: share of unrelated prompts that are answered as by the base.
    """

    edit_success: float | None = None
    agreement: float | None = None

    def require(self, figures: Figures) -> None:
        """Compare the figures of a merge with the floors.

        Raises:
            ArtefactError: a figure is below its floor.
            ExportError: a floor is set for a figure that the project cannot measure.
        """
        asked = {"edit_success": self.edit_success, "locality_agreement": self.agreement}
        named = {"edit_success": "edit success", "locality_agreement": "agreement with the base"}
        for metric, floor in asked.items():
            share = figures["merged"][metric]
            if floor is None:
                continue
            if share is None:
                raise ExportError(
                    f"{named[metric]} cannot be measured: the project has no prompts for it", where="--min"
                )
            if share["generation"] < floor:
                raise ArtefactError(
                    f"{named[metric]} of the merged model is {share['generation']:.3f}, below {floor:g}; "
                    "nothing was written",
                    where="melo export",
                    hint="use --format routed, or another --merge-method",
                )


def export_merged(
    opened: OpenProject,
    folder: Path,
    reporter: Reporter,
    *,
    methods: Sequence[MergeMethod] = (Sum(),),
    examples: ExampleSettings | None = None,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    check: int | None = None,
    floors: Floors | None = None,
    fresh_process: bool = True,
) -> ExportSummary:
    """Find weights that hold the edits, write the checkpoint, and measure what it keeps.

    A merged model has no router: its weights must separate an edit's prompts from all others. The figures of
    base, routed and merged model are returned and written into the model card.

    Args:
        opened: the project, opened.
        folder: where to write the checkpoint.
        reporter: shows progress.
        methods: one merge method, or several of which the best is taken; the cheapest first.
        examples: settings of the examples that a merge method learns from.
        overwrite: replace a folder that melo exported.
        dtype: dtype of the weights; None keeps that of the base checkpoint. Sums are computed in float32 and
            cast once.
        check: largest number of edits, rephrases and unrelated prompts to measure on; None is all, 0 is none.
        floors: the least figures that the merge must reach.
        fresh_process: measure in a fresh process; False measures in this one, which needs the base's weights.

    Raises:
        ArtefactError: a figure is below its floor.
        ExportError: the base is quantized, or the folder exists already or cannot be written.
        ProjectError: the project has no live edit.
    """
    examples, floors = examples or ExampleSettings(), floors or Floors()
    require_checkpoint(opened)
    require_unquantized(opened.routed.base)
    if not opened.live_blocks():
        raise ProjectError("the project has no live edit", where=str(opened.project.path))
    with new_folder(folder, overwrite=overwrite, record=opened.describe("merged")) as work:
        started = time.monotonic()
        merged = merge(opened, methods, examples, reporter)
        write_checkpoint(opened.routed.base, merged.changes, work, dtype, reporter)
        seconds = time.monotonic() - started
        figures = (
            {} if check == 0 else _measure(opened, work, merged, check, reporter, fresh_process=fresh_process)
        )
        if figures:
            floors.require(figures)
        card = merged_card(opened, merged.described, seconds, figures)
        (work / "README.md").write_text(card, encoding="utf-8")
    return summary(
        "merged", folder, len(opened.live_blocks()), figures, method=merged.method, seconds=seconds
    )


def _measure(
    opened: OpenProject,
    work: Path,
    merged: Merge,
    count: int | None,
    reporter: Reporter,
    *,
    fresh_process: bool,
) -> Figures:
    request = {"folder": str(work), "count": count, "taught": list(merged.taught)}
    if not fresh_process:
        return measure(opened, request, reporter)
    figures: Figures = run_in_worker("measure", opened, request, reporter)
    return figures
