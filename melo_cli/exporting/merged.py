"""`melo export --merge`: one plain checkpoint whose weights hold the edits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from melo_cli.errors import ArtefactError, ExportError, ProjectError
from melo_cli.exporting.base_copy import require_checkpoint
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.exporting.merging.checkpoint import require_plain, write_checkpoint
from melo_cli.exporting.merging.methods import Merge, MergeMethod, Sum, merge
from melo_cli.exporting.merging.retention import Figures, measure
from melo_cli.exporting.merging.training_examples import ExampleSettings
from melo_cli.exporting.model_card import merged_card
from melo_cli.exporting.worker import run_in_worker
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject


@dataclass(frozen=True)
class Floors:
    """What a merge must keep, as shares by greedy generation; None asks for nothing."""

    edit_success: float | None = None
    agreement: float | None = None

    def require(self, figures: Figures) -> None:
        """Compare with what was measured.

        Raises:
            ArtefactError: the merged model is below a floor.
        """
        asked = {"edit_success": self.edit_success, "locality_agreement": self.agreement}
        named = {"edit_success": "edit success", "locality_agreement": "agreement with the base"}
        for metric, floor in asked.items():
            share = figures["merged"][metric]
            if floor is None:
                continue
            if share is None:
                raise ExportError(f"the project has nothing to measure {named[metric]} on", where="--min")
            if share["generation"] < floor:
                raise ArtefactError(
                    f"{named[metric]} of the merged model is {share['generation']:.3f}, below {floor:g}; "
                    "nothing was put in place",
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
    apart: bool = True,
) -> ExportSummary:
    """Find weights that hold the edits, write the checkpoint, and measure what it keeps.

    A dense model has no router: what tells an edit's prompts from all others has to be learned into its
    weights. The figures of base, routed and merged model are returned and stand in the model card.

    Args:
        methods: one way to merge, or several, cheapest first, of which the best is taken.
        examples: what a method that learns learns from.
        dtype: of the weights; the base checkpoint's own if None. Sums are made in float32 and cast once.
        check: how many edits, rephrases and unrelated prompts to measure on at most; None is all, 0 is none.
        apart: measure in a fresh process; False does it in this one, which needs the base's weights.

    Raises:
        ArtefactError: a floor is missed.
        ExportError: the base is quantized; the folder exists already, or cannot be written.
        ProjectError: the project has no live edit.
    """
    examples, floors = examples or ExampleSettings(), floors or Floors()
    require_checkpoint(opened)
    require_plain(opened.routed.base)
    if not opened.live_blocks():
        raise ProjectError("the project has no live edit", where=str(opened.project.path))
    with new_folder(folder, overwrite=overwrite, record=opened.describe("merged")) as work:
        started = time.monotonic()
        merged = merge(opened, methods, examples, reporter)
        write_checkpoint(opened.routed.base, merged.changes, work, dtype, reporter)
        seconds = time.monotonic() - started
        figures = {} if check == 0 else _measure(opened, work, merged, check, reporter, apart=apart)
        if figures:
            floors.require(figures)
        card = merged_card(opened, merged.described, seconds, figures)
        (work / "README.md").write_text(card, encoding="utf-8")
    return summary(
        "merged", folder, len(opened.live_blocks()), figures, method=merged.method, seconds=seconds
    )


def _measure(
    opened: OpenProject, work: Path, merged: Merge, count: int | None, reporter: Reporter, *, apart: bool
) -> Figures:
    request = {"folder": str(work), "count": count, "taught": list(merged.taught)}
    if not apart:
        return measure(opened, request, reporter)
    figures: Figures = run_in_worker("measure", opened, request, reporter)
    return figures
