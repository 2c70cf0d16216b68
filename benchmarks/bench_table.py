"""One table of several runs of `melo bench`: a row a run, a column a method, and the command of each row.

    python benchmarks/bench_table.py FOLDER ... --methods melo,lookup,icl --kinds edit,rephrase,locality

A cell has the shares of the kinds, one behind the other, as far as the run asked them: of what must stay the
share that is answered as by the base.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the table, then the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--methods", default="melo,lookup,icl,rag,finetune")
    parser.add_argument("--kinds", default="edit,rephrase,locality")
    options = parser.parse_args()
    methods, kinds = options.methods.split(","), options.kinds.split(",")
    lines = [f"| set, edits | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    commands = []
    for folder in options.folders:
        run = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        cells = [_cell(folder / "answers" / f"{method}.json", kinds) for method in methods]
        plan = run["plan"]
        lines.append(f"| {plan['suite']}, {plan['edits']} | {' | '.join(cells)} |")
        commands += run["commands"]
    sys.stdout.write("\n".join([*lines, "", *commands, ""]))


def _cell(path: Path, kinds: list[str]) -> str:
    if not path.exists():
        return ""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return " / ".join(_share(figures[kind]["right"]) for kind in kinds if kind in figures)


def _share(share: float) -> str:
    """With three digits behind the point, as the other tables of docs/results.md have it."""
    return f"{share:.3f}".removeprefix("0") if share else "0"


if __name__ == "__main__":
    main()
