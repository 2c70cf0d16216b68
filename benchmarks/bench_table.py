"""Several runs of `melo bench` in two tables, what is answered and what it costs, and the commands.

    python benchmarks/bench_table.py FOLDER ... --methods melo,lookup,icl --kinds edit,rephrase,locality

A row is a run, a column a method. A cell of the first table has the shares of the kinds, one behind the
other, as far as the run asked them: of what must stay the share that is answered as by the base. A cell of
the second table has the seconds that an edit took, and the KB that it stores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the tables, then the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--methods", default="melo,lookup,icl,rag,finetune")
    parser.add_argument("--kinds", default="edit,rephrase,locality")
    options = parser.parse_args()
    methods, kinds = options.methods.split(","), options.kinds.split(",")
    header = [f"| set, edits | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    shares, costs, commands = list(header), list(header), list[str]()
    for folder in options.folders:
        run = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        found = [_found(folder / "answers" / f"{method}.json") for method in methods]
        name = f"{run['plan']['suite']}, {run['plan']['edits']}"
        shares.append(f"| {name} | {' | '.join(_shares(each, kinds) for each in found)} |")
        costs.append(f"| {name} | {' | '.join(_cost(each) for each in found)} |")
        commands += run["commands"]
    sys.stdout.write("\n".join([*shares, "", *costs, "", *commands, ""]))


def _found(path: Path) -> dict[str, Any]:
    """What a method's file holds; nothing where the run did not ask it."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _shares(found: Mapping[str, Any], kinds: Sequence[str]) -> str:
    figures = found.get("figures", {})
    return " / ".join(_share(figures[kind]["right"]) for kind in kinds if kind in figures)


def _cost(found: Mapping[str, Any]) -> str:
    return f"{found['seconds_an_edit']:.3g} / {found['bytes_an_edit'] / 1024:.3g}" if found else ""


def _share(share: float) -> str:
    """With three digits behind the point, as the other tables of docs/results.md have it."""
    return f"{share:.3f}".removeprefix("0") if share else "0"


if __name__ == "__main__":
    main()
