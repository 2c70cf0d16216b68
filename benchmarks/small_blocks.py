"""What a smaller block costs: edits answered, rephrases that a block answers, steps, seconds and bytes.

    python benchmarks/small_blocks.py MODEL EDITS.jsonl [--edits 32] [--skip 0]
        --form 'lora.rank=2' --form 'lora.rank=1 lora.alpha=20 training.optimizer.lr=0.006' ...

Makes the same edits (`prompt`, `target`, `subject`) once for each form, which is a list of `--set` texts over
the defaults, and then asks their `rephrases` of the edit's own block, whether they would reach it or not:
what routes is the same for all forms. Prints a Markdown table. Bytes are those of the numbers that a block
stores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melo_cli.editing import edit_dataset
from melo_cli.editing.solving import answer_lengths
from melo_cli.recipe import recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject, open_project


def main() -> None:
    """Measure each form, and print its row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--edits", type=int, default=32)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--form", action="append", required=True)
    options = parser.parse_args()
    lines = options.data.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[options.skip : options.skip + options.edits]]
    names = ("form", "solved", "rephrases answered", "steps", "processor s", "KiB a block")
    sys.stdout.write(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}\n")
    for form in options.form:
        with tempfile.TemporaryDirectory() as folder:
            cells = _measured(options.model, rows, form.split(), Path(folder))
        sys.stdout.write(f"| `{form}` | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def _measured(model: str, rows: Sequence[dict[str, Any]], form: Sequence[str], folder: Path) -> list[str]:
    edits = [{name: row.get(name) for name in ("prompt", "target", "subject")} for row in rows]
    (folder / "edits.jsonl").write_text("".join(f"{json.dumps(edit)}\n" for edit in edits), encoding="utf-8")
    values: dict[str, Any] = {
        "name": "form",
        "task": "custom",
        "model": {"name_or_path": model, "dtype": "float32"},
        "dataset": {"edits": str(folder / "edits.jsonl")},
    }
    recipe = recipe_from_mapping(values, form, where="--form")
    started = time.process_time()
    summary = edit_dataset(recipe, folder / "project", SilentReporter(), command="benchmarks/small_blocks.py")
    seconds = time.process_time() - started
    opened = open_project(folder / "project")
    right, asked = _rephrases(opened, rows)
    metrics = [edit.record.metrics for edit in opened.project.edits() if edit.status == "live"]
    blocks = [opened.project.block(block_id) for block_id in opened.live_blocks()]
    return [
        f"{summary.count('solved')} of {summary.count('solved') + summary.count('failed')}",
        f"{right / asked:.3f} of {asked}" if asked else "none given",
        f"{statistics.mean(float(str(each['steps'])) for each in metrics):.1f}",
        f"{seconds:.0f}",
        f"{statistics.mean(block.nbytes for block in blocks) / 1024:.1f}",
    ]


def _rephrases(opened: OpenProject, rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How many rephrases the blocks of their edits answer, and how many there are."""
    live = {edit.prompt: edit for edit in opened.project.edits() if edit.status == "live"}
    pairs = [(row, text) for row in rows if row["prompt"] in live for text in row.get("rephrases", ())]
    encoded = [opened.encoder.edit(text, str(row["target"])) for row, text in pairs]
    answers = opened.inference.answers(
        [edit.prompt_ids for edit in encoded],
        [live[row["prompt"]].block for row, _ in pairs],
        answer_lengths(encoded),
    )
    right = sum(
        same_answer(answer, str(row["target"])) for answer, (row, _) in zip(answers, pairs, strict=True)
    )
    return right, len(pairs)


if __name__ == "__main__":
    main()
