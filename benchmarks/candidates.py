"""Whether the graph of real keys finds the candidates that exact search finds, as Markdown.

    python benchmarks/candidates.py MODEL EDITS.jsonl [EDITS.jsonl ...] [--encoder ENCODER]

Every prompt of the files becomes a neuron, with keys learnt as a project learns them. The queries are their
first rephrases. The graph needs `melo_store.index.neuron_index.GRAPH_FROM` prompts or more.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scope import parser_of, prepared, rows_of

from melo_cli.calibration.scope_cache import scope_learnt_with
from melo_cli.models.base_model import BaseModel
from melo_cli.recipe import Recipe
from melo_cli.reporter import SilentReporter
from melo_cli.scope.core.rules import CANDIDATES
from melo_cli.scope.reading import reader_for
from melo_store.index.neuron_index import Matrix, NeuronIndex, SearchResult
from melo_store.records import Vector

_TIMED = 1000


def main() -> None:
    """Measure, and print."""
    parser = parser_of(__doc__)
    parser.add_argument("more", nargs="*", type=Path)
    options = parser.parse_args()
    rows = [row for path in (options.data, *options.more) for row in rows_of(path)]
    wanted = {row["prompt"].strip(): row["rephrases"] for row in rows}
    recipe, base = prepared(options, (), Path())
    prompts = list(wanted)
    rephrased = [(number, texts[0].strip()) for number, texts in enumerate(wanted.values()) if texts]
    keys = _keys(options, recipe, base, [*prompts, *(text for _, text in rephrased)])
    stored, points = keys[: len(prompts)], keys[len(prompts) :]
    right = np.array([number for number, _ in rephrased])
    numbers = np.arange(len(prompts), dtype=np.int64)
    index = NeuronIndex.of_none(keys.shape[1]).over(numbers, lambda some: stored[some])
    if not index.flush():
        parser.error(f"{len(prompts)} prompts are too few for a graph")
    sys.stdout.write(f"{len(prompts):,} keys of {keys.shape[1]} numbers, {len(points):,} rephrases\n\n")
    sys.stdout.write("| search | the right edit is nearest | among the eight | ms a key |\n")
    sys.stdout.write("| --- | --- | --- | --- |\n")
    for name, search in (("graph", index), ("exact", Matrix(numbers, stored))):
        result = search.nearest(points, CANDIDATES)
        started = time.perf_counter()
        for point in points[:_TIMED]:
            search.nearest(point[None], CANDIDATES)
        each = 1000 * (time.perf_counter() - started) / min(_TIMED, len(points))
        first, among = (_recall(result.first(count), right) for count in (1, CANDIDATES))
        sys.stdout.write(f"| {name} | {first:.4f} | {among:.4f} | {each:.2f} |\n")


def _keys(options: argparse.Namespace, recipe: Recipe, base: BaseModel, texts: Sequence[str]) -> Vector:
    learnt = scope_learnt_with(base, recipe.key.layer, options.questions, SilentReporter())
    keys: Vector = learnt.model.keys(reader_for(base, recipe.key.layer).read(texts)).numpy()
    return keys


def _recall(result: SearchResult, right: np.ndarray) -> float:
    """The share of points whose own neuron was found."""
    return len(set(result.row[result.number == right[result.row]].tolist())) / len(right)


if __name__ == "__main__":
    main()
