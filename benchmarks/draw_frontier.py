"""Generality against false fires, as a curve: what another limit would give a project that was evaluated.

    melo eval --results RESULTS.parquet
    python benchmarks/draw_frontier.py RESULTS.parquet --out FRONTIER.svg

Draws the chart of `melo eval --report` alone, and prints the points of the hard negatives' curve as Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from melo_cli.evaluation.charts import frontier_chart
from melo_cli.evaluation.decision_measures import measure_of
from melo_cli.evaluation.frontier import best_within, ceiling, frontier
from melo_cli.evaluation.results import Result

_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def main() -> None:
    """Draw and print."""
    options = _options()
    results = [Result(**row) for row in pq.read_table(options.results).to_pylist()]
    of_kind = {
        kind: [row for row in results if row.kind == kind] for kind in ("rephrase", "hard", "unrelated")
    }
    rephrases, measure = of_kind["rephrase"], measure_of(results)
    hard = frontier(rephrases, of_kind["hard"], measure)
    curves = [
        ("hard", "hard negatives", hard),
        ("unrelated", "unrelated prompts", frontier(rephrases, of_kind["unrelated"], measure)),
    ]
    frontier_chart(curves, ceiling(rephrases)).save(options.out)
    limit = "probability from" if measure.rising else "radii times"
    lines = [f"| hard negatives that fire, at most | {limit} | rephrases that reach the right edit |"]
    lines.append("| --- | --- | --- |")
    for share in _SHARES:
        point = best_within(hard, share)
        if point is not None:
            lines.append(f"| {share:.2f} | {point.limit:.2f} | {point.reached:.3f} |")
    lines.append(f"| any | | {ceiling(rephrases):.3f} |")
    print("\n".join(lines))  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
