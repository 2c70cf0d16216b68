"""Compares every exported adapter, loaded by PEFT alone, with the routed model.

    melo export --format peft --project PROJECT --to FOLDER
    python benchmarks/adapters_agree.py PROJECT FOLDER [--blocks N]

Each block is asked the prompts of its own edits, teacher-forced on their targets. Prints the largest
difference of a logit, in float32. Exit code 1 where the difference reaches 1e-4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor

from melo_cli.models.base_model import load_base_model
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.scoring import TargetBatch, target_batch

LIMIT = 1e-4


def main() -> int:
    """Compare block by block."""
    arguments = _arguments()
    opened = open_project(arguments.project)
    section = opened.recipe.model.model_copy(update={"name_or_path": opened.project.base.name_or_path})
    worst = 0.0
    count = 0
    for folder in sorted((arguments.export / "adapters").iterdir())[: arguments.blocks]:
        batch = _edits_of(opened, folder.name)
        if batch is None:
            continue
        # A fresh base for every adapter, which melo has never touched.
        fresh = load_base_model(section, opened.recipe.task)
        adapted = PeftModel.from_pretrained(fresh.model, str(folder)).eval()
        worst = max(worst, _difference(opened, adapted, batch, folder.name))
        count += len(batch.targets)
    print(f"{arguments.project}: {count} prompts, largest difference of a logit {worst:.2e}")  # noqa: T201
    return int(worst >= LIMIT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("export", type=Path)
    parser.add_argument("--blocks", type=int, help="only the first so many")
    return parser.parse_args()


def _edits_of(opened: OpenProject, block: str) -> TargetBatch | None:
    live = [edit for edit in opened.project.edits() if edit.block == block and edit.status == "live"]
    encoded = [opened.encoder.edit(edit.prompt, edit.target) for edit in live]
    return target_batch(opened.routed.base, encoded) if encoded else None


@torch.no_grad()
def _difference(opened: OpenProject, adapted: PeftModel, batch: TargetBatch, block: str) -> float:
    with opened.routed.using([block] * len(batch.targets)):
        routed: Tensor = opened.routed.base.model(**batch.inputs).logits
    theirs: Tensor = adapted(**batch.inputs).logits
    delta: Tensor = routed - opened.routed.base.model(**batch.inputs).logits
    if not delta.abs().max() > 100 * LIMIT:
        sys.exit(f"block {block} changes nothing: there is nothing to compare")
    return float((routed - theirs).abs().max())


if __name__ == "__main__":
    sys.exit(main())
