"""How many rephrases reach their edit and what fires wrongly, by kind, without training a block.

    python benchmarks/scope.py MODEL EDITS.jsonl [--task TASK] [--encoder ENCODER] [--edits 1000]
        [--layer LAYER] [--questions 2200] [--skip 0] [--locality hard] [--own 500] [--slips 0] [--json]

Stores the first edits of a file (`prompt`, `target`, `subject`, `rephrases`, `locality_prompt`) as neurons
under the rule `verified`, with a scope model learnt as a project learns it, and routes their rephrases and
locality prompts. Nothing is learnt from their rephrases. With `--own N` calibration learns from the N
rows behind the edits, as from `dataset.calibration`.

In `user_questions.jsonl` rephrases stand by their way ("formal", "keyword", "typo" and so on), and under
`others` stands by its kind what an edit must leave alone; lists of it stand under `same_subject` and
`other_subject`, too. With `--slips N` every prompt but the edits' own is put in lower case, and N words of
five letters and more get a slip each: a letter left out, doubled, put for another one, or two that change
places.

A rephrase reaches its edit if it is routed to an edit with the same target. Whether the block then gives the
target is measured by `melo eval`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melo_cli.calibration import calibrate
from melo_cli.datasets import EditRequest
from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.recipe.schema import CalibrationSection
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import resolve_recipe
from melo_cli.scope.core.exported import NeuronTable
from melo_cli.scope.core.router import Router, verified_router
from melo_cli.scope.core.rules import Route
from melo_cli.scope.reading import reader_for


def main() -> None:
    """Measure one data set on one model, and print a line a kind."""
    options = parser_of(__doc__).parse_args()
    rows = rows_of(options.data)
    edits = rows[options.skip : options.skip + options.edits]
    own = rows[options.skip + options.edits :][: options.own]
    with tempfile.TemporaryDirectory() as folder:
        recipe, base = prepared(options, own, Path(folder))
        router, expected = _router(recipe, base, edits)
    started = time.perf_counter()
    results = list(_measured(router, edits, options.locality, options.slips))
    seconds = (time.perf_counter() - started) / max(1, len(results))
    kinds: dict[str, list[bool]] = defaultdict(list)
    for kind, good in results:
        kinds[kind].append(good)
    figures = {kind: {"share": sum(some) / len(some), "n": len(some)} for kind, some in kinds.items()}
    if options.json:
        document = {"figures": figures, "expected": expected, "ms_a_prompt": 1000 * seconds}
        sys.stdout.write(f"{json.dumps(document)}\n")
        return
    lines = [f"threshold {expected['threshold']}, learnt from own rows: {expected['moved']}"]
    lines += [f"{kind:34s} n {figure['n']:5d}  {figure['share']:.3f}" for kind, figure in figures.items()]
    lines.append(f"{1000 * seconds:.1f} ms a prompt, reading it among them")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def prepared(
    options: argparse.Namespace, own: Sequence[dict[str, Any]], folder: Path
) -> tuple[Recipe, BaseModel]:
    """The recipe of a measurement and its base model.

    Args:
        options: the options of `parser_of`.
        own: rows that calibration learns from.
        folder: an existing folder; `own` is written there as a JSONL file.

    Returns:
        The recipe, resolved, and the base model.
    """
    dataset: dict[str, Any] = {"edits": str(options.data)}
    if own:
        path = folder / "own.jsonl"
        path.write_text("".join(f"{json.dumps(_as_melo(row))}\n" for row in own), encoding="utf-8")
        dataset["calibration"] = str(path)
    recipe = recipe_from_mapping(
        {
            "name": "scope",
            "task": options.task,
            "model": {"name_or_path": options.model, "dtype": "float32"},
            "dataset": dataset,
            "key": {"encoder": options.encoder, "layer": options.layer},
            "calibration": {"share": 0, "max_edits": max(1, options.own), "questions": options.questions},
        },
        where="benchmarks/scope.py",
    )
    base = load_base_model(recipe.model, recipe.task, encoder=recipe.key.encoder)
    return resolve_recipe(recipe, base), base


def requests_of(rows: Sequence[dict[str, Any]]) -> list[EditRequest]:
    """Rows as edits, without their rephrases.

    Args:
        rows: rows with `prompt`, `target` and perhaps `subject`.
    """
    return [EditRequest(row["prompt"], str(row["target"]), (), (), row.get("subject")) for row in rows]


def _router(
    recipe: Recipe, base: BaseModel, edits: Sequence[dict[str, Any]]
) -> tuple[Router, dict[str, Any]]:
    """A router over the edits, and what calibration expects of it."""
    calibration = calibrate(recipe, base, requests_of(edits), SilentReporter())
    key_map = calibration.key_map(recipe.seed)
    arrays = {name: torch.tensor(array) for name, array in key_map.arrays.items()}
    empty = NeuronTable([], {"keys": torch.zeros((0, calibration.model.key_size))})
    router = verified_router(key_map.settings, arrays, reader_for(base, recipe.key.layer), empty)
    records = router.records([row["prompt"] for row in edits], [row.get("subject") for row in edits])
    starts = np.cumsum([0, *(len(record.tokens) for record in records)])
    router.neurons = NeuronTable(
        [
            {"edit_id": f"e{at:06d}", "adapter": f"b{at:06d}", "prompt": row["prompt"]}
            for at, row in enumerate(edits, 1)
        ],
        {
            "keys": torch.tensor(np.stack([record.key for record in records])),
            "tokens": torch.tensor(np.concatenate([record.tokens for record in records])),
            "token_starts": torch.tensor(starts),
        },
    )
    return router, calibration.report()


def _measured(
    router: Router, edits: Sequence[dict[str, Any]], locality: str, slips: int
) -> Iterator[tuple[str, bool]]:
    """For each prompt its kind, and whether it is routed as it should be."""
    prompts = {row["prompt"].strip() for row in edits}
    for at, route in enumerate(router.routes([row["prompt"] for row in edits]), 1):
        # Where one prompt is asked for twice, the newer edit answers.
        yield (
            "edit",
            _edit(route) is not None and edits[_number(route) - 1]["prompt"] == edits[at - 1]["prompt"],
        )
    drawn = random.Random(0)
    asked = [
        (at, way, _slipped(text, slips, drawn))
        for at, row in enumerate(edits, 1)
        for way, text in _by_kind(row.get("rephrases", ()), "rephrase")
    ]
    for (at, way, _), route in zip(asked, router.routes([text for *_, text in asked]), strict=True):
        # Another edit that wants the same answer to the same question is as right.
        right = _edit(route) is not None and edits[_number(route) - 1]["target"] == edits[at - 1]["target"]
        yield way, right
        yield "rephrases: no other edit answers", right or _edit(route) is None
    beside = [
        (kind, text)
        for row in edits
        for kind, text in [
            (locality, row.get("locality_prompt")),
            *row.get("others", {}).items(),
            *_by_kind(row.get("same_subject", ()), "same subject"),
            *_by_kind(row.get("other_subject", ()), "other subject"),
        ]
        if text and text.strip() not in prompts
    ]
    others = [(kind, _slipped(text, slips, drawn)) for kind, text in dict.fromkeys(beside)]
    for (kind, _), route in zip(others, router.routes([text for _, text in others]), strict=True):
        yield f"{kind} left alone", _edit(route) is None


def _by_kind(texts: Mapping[str, str] | Sequence[str], kind: str) -> list[tuple[str, str]]:
    """Texts with their kinds; of a list all are of one kind."""
    return list(texts.items()) if isinstance(texts, Mapping) else [(kind, text) for text in texts]


def _slipped(text: str, count: int, drawn: random.Random) -> str:
    """A text typed in a hurry, with so many slips; as it is, with none."""
    if not count:
        return text
    text = text.lower().rstrip("?.")
    words = [match.span() for match in re.finditer("[a-z]{5,}", text)]
    for begin, end in sorted(drawn.sample(words, min(count, len(words))), reverse=True):
        at = drawn.randrange(begin + 1, end - 1)
        letter = drawn.choice(string.ascii_lowercase)
        slips = ("", text[at] * 2, letter, text[at + 1] + text[at])
        slip = drawn.randrange(len(slips))
        text = text[:at] + slips[slip] + text[at + 1 + (slip == 3) :]
    return text


def _edit(route: Route) -> str | None:
    return route.fired.edit_id if route.fired is not None else None


def _number(route: Route) -> int:
    return int(str(_edit(route))[1:])


def _as_melo(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("prompt", "target", "subject", "rephrases") if name in row}
    locality = [{"prompt": row["locality_prompt"]}] if row.get("locality_prompt") else []
    return kept | {"target": str(row["target"]), "locality": locality}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def parser_of(doc: str) -> argparse.ArgumentParser:
    """The options for data, model and kind of prompts.

    Args:
        doc: the docstring of the script; its first line describes the command.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="custom")
    parser.add_argument("--encoder")
    parser.add_argument("--layer", default="auto")
    parser.add_argument("--questions", type=int, default=CalibrationSection().questions)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--own", type=int, default=0)
    parser.add_argument("--locality", choices=("hard", "unrelated"), default="hard")
    parser.add_argument("--slips", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
