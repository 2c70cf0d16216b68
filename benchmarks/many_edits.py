"""What a project with very many edits costs, and whether prompts still reach their edit.

    python benchmarks/make_facts.py facts.jsonl
    python benchmarks/fill_project.py PROJECT facts.jsonl FOLDER --edits 100000
    python benchmarks/many_edits.py FOLDER facts.jsonl [--sample 1000] [--unrelated PROMPTS.jsonl]
        [--trained EDITS.jsonl]

Prints a Markdown table: seconds to open the project on its model (the model's own seconds apart) and of the
first route, quantiles of single routes, memory, the share of one rephrase of each of the first `--sample`
facts that reaches its edit, the share of the same questions about subjects that no edit has that fire, and
that of unrelated prompts (`prompt` or `locality_prompt` of a file). With `--trained`, the file of the edits
that PROJECT was made of, also the share of the first `--sample` of these that are answered with their target,
asked in their own words and in those of their first rephrase. Then the seconds of commands that read the
store alone, and of a commit and a revert of one edit.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from melo_cli.editing.solving import answer_lengths
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject, load_base, model_of, open_project, stored_recipe
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.records import NewEdit
from melo_store.writer import open_writer

_VERBS = (("status",), ("log",), ("verify", "--quick"), ("gc", "--dry-run"))


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("facts", type=Path)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--unrelated", type=Path)
    parser.add_argument("--trained", type=Path)
    options = parser.parse_args()
    project = Project.open(options.project)
    recipe = stored_recipe(project)
    model = _seconds(lambda: load_base(recipe, model_of(project, recipe, None), project, SilentReporter()))
    started = time.perf_counter()
    opened = open_project(options.project)
    opening = time.perf_counter() - started - model
    facts = _rows(options.facts)[: options.sample]
    first = _seconds(lambda: opened.inference.routes([facts[0]["prompt"]]))
    rows = [
        ("edits", f"{len(opened.project.edits()):,}"),
        ("open, s, without the model's", f"{max(0.0, opening):.2f}"),
        ("first route, s", f"{first:.2f}"),
        *_single_routes(opened, facts[:200]),
        *_shares(opened, facts, options.unrelated),
        *(_answered(opened, _rows(options.trained)[: options.sample]) if options.trained else ()),
        ("peak memory, MiB", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:,}"),
        *((f"melo {' '.join(verb)}, s", f"{_command(options.project, verb):.2f}") for verb in _VERBS),
        *_commit_and_revert(options.project),
    ]
    sys.stdout.write("| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _single_routes(opened: OpenProject, facts: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Quantiles of routes one by one, and of what the edits add to them: the search and the comparison."""
    prompts = [fact["rephrases"][0] for fact in facts]
    router = opened.routed.router
    whole = sorted(_seconds(partial(router.routes, [text])) for text in prompts)
    reading = sorted(_seconds(partial(router.recorder.records, [text])) for text in prompts)
    for name, times in (("route", whole), ("reading alone", reading)):
        p50, p95 = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.95))
        yield f"{name}, p50 / p95, ms", f"{p50:.1f} / {p95:.1f}"


def _shares(
    opened: OpenProject, facts: Sequence[dict[str, Any]], unrelated: Path | None
) -> Iterator[tuple[str, str]]:
    draw = random.Random(0)
    asked = [draw.choice(fact["rephrases"]) for fact in facts]
    prompt_of = {edit.edit_id: edit.prompt for edit in opened.project.edits()}
    reached = [
        route.fired is not None and prompt_of[route.fired.edit_id] == fact["prompt"]
        for route, fact in zip(opened.inference.routes(asked), facts, strict=True)
    ]
    yield "rephrases that reach their edit", f"{sum(reached) / len(reached):.3f}"
    others = {"the same about other subjects": [fact["locality_prompt"] for fact in facts]}
    if unrelated is not None:
        rows = _rows(unrelated)[: len(facts)]
        others["unrelated prompts"] = [row.get("locality_prompt") or row["prompt"] for row in rows]
    for name, prompts in others.items():
        fired = sum(route.fired is not None for route in opened.inference.routes(prompts))
        yield f"{name} that fire", f"{fired / len(prompts):.4f}"


def _answered(opened: OpenProject, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Shares of trained edits that are answered with their target, by greedy generation after their route."""
    for name, asked in (
        ("trained edits answered", [(row["prompt"], str(row["target"])) for row in rows]),
        ("their rephrases answered", [(row["rephrases"][0], str(row["target"])) for row in rows]),
    ):
        routes = opened.inference.routes([text for text, _ in asked])
        reached = [
            (opened.encoder.edit(text, target), route.fired.block, target)
            for (text, target), route in zip(asked, routes, strict=True)
            if route.fired is not None
        ]
        edits = [edit for edit, _, _ in reached]
        answers = opened.inference.answers(
            [edit.prompt_ids for edit in edits], [block for _, block, _ in reached], answer_lengths(edits)
        )
        right = sum(
            same_answer(answer, target) for answer, (_, _, target) in zip(answers, reached, strict=True)
        )
        yield f"{name} (of {len(rows)})", f"{right / len(rows):.3f}"


def _command(project: Path, verb: Sequence[str]) -> float:
    command = [sys.executable, "-m", "melo_cli", *verb, "--project", str(project)]
    return _seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def _commit_and_revert(path: Path) -> Iterator[tuple[str, str]]:
    """Of one edit, in a copy."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        copy = Path(shutil.copytree(path, Path(folder) / "copy"))
        project = Project.open(copy)
        old = project.edits()[0]
        record = old.record
        new = NewEdit(
            "A prompt that no edit has?",
            "yes",
            label=(1,),
            key=record.key,
            tokens=record.tokens,
            block="new",
        )
        blocks = {"new": project.block(str(old.block)).slices}
        with open_writer(project) as writer:

            def commit() -> None:
                writer.stage([new], blocks).commit(
                    action="edit", recipe=project.recipe, seed=0, versions=library_versions()
                )

            yield "the first commit of a writer, s", f"{_seconds(commit):.2f}"
            edit = writer.project.edits()[-1].edit_id
            yield (
                "a revert, s",
                f"{_seconds(lambda: writer.revert([edit], versions=library_versions())):.2f}",
            )


if __name__ == "__main__":
    main()
