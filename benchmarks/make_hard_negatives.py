"""Makes hard negatives: the questions of a data set's edits, asked about subjects that no edit is about.

    python benchmarks/make_hard_negatives.py --edits zsre.jsonl --subjects counterfact.jsonl --out hard.jsonl

Both files hold rows with `prompt`, `target` and `subject`. For `dataset.hard`, which evaluation asks.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from melo_cli.paraphrase.subject_swaps import normalized, swap_subject


def main() -> None:
    """Draw a subject for each edit whose prompt mentions its own, and write the prompts."""
    arguments = _arguments()
    edits, others = _rows(arguments.edits), _rows(arguments.subjects)
    edited = {normalized(row["subject"]) for row in edits}
    subjects = sorted({row["subject"] for row in others if normalized(row["subject"]) not in edited})
    drawn = random.Random(arguments.seed)
    made = []
    for row in edits:
        subject = drawn.choice(subjects)
        prompt = swap_subject(row["prompt"], row["subject"], subject)
        if prompt is not None:
            made.append({"prompt": prompt, "target": row["target"], "subject": subject})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    arguments.out.write_text("".join(lines), encoding="utf-8")
    print(f"{arguments.out}: {len(made)} prompts about {len(subjects)} subjects")  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--subjects", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
