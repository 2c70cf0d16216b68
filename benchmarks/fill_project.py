"""Fills a project up with edits that nothing was trained for: their blocks are those of its own edits.

    python benchmarks/fill_project.py PROJECT EDITS.jsonl FOLDER [--edits 1000] [--at-once 1000]

Copies PROJECT to FOLDER and adds edits of a file until there are `--edits`, in commits of `--at-once`. Their
keys and token vectors are those of their prompts. Their answers are wrong. What is measured on such a project
depends on the number of neurons and blocks and not on what the blocks say: time, memory, and whether a
prompt reaches its edit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.versions import library_versions
from melo_store.records import LoraSlice, NewEdit
from melo_store.writer import open_writer

_Block = Mapping[str, LoraSlice]


def main() -> None:
    """Fill, and say how many edits there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=1000)
    options = parser.parse_args()
    shutil.copytree(options.project, options.folder)
    opened = open_project(options.folder)
    wanted = options.edits - len(opened.project.edits())
    rows = list(itertools.islice(_new(opened, options.data), wanted))
    blocks = _copies([opened.project.block(block_id).slices for block_id in opened.live_blocks()])
    with open_writer(opened.project) as writer:
        for start in range(0, len(rows), options.at_once):
            some = rows[start : start + options.at_once]
            names = [f"copy {at}" for at in range(len(some))]
            writer.stage(_edits(opened, some, names), dict(zip(names, blocks, strict=False))).commit(
                action="edit",
                recipe=opened.recipe.to_mapping(),
                seed=opened.recipe.seed,
                versions=library_versions(),
                command="benchmarks/fill_project.py",
            )
        sys.stdout.write(f"{len(writer.project.edits())} edits in {options.folder}\n")


def _new(opened: OpenProject, data: Path) -> Iterator[dict[str, Any]]:
    """Rows whose prompts no edit of the project has, each prompt once."""
    known = {edit.prompt for edit in opened.project.edits()}
    for line in data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["prompt"] not in known:
            known.add(row["prompt"])
            yield row


def _copies(blocks: Sequence[_Block]) -> Iterator[_Block]:
    """The blocks over and over, each a hair's breadth off, so that no two have the same weights."""
    for number, block in enumerate(itertools.cycle(blocks)):
        yield {name: replace(part, scale=part.scale * (1.0 + 1e-6 * number)) for name, part in block.items()}


def _edits(opened: OpenProject, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[NewEdit]:
    router = opened.routed.router
    records = router.records([row["prompt"] for row in rows], [row.get("subject") for row in rows])
    return [
        NewEdit(
            row["prompt"],
            str(row["target"]),
            subject=row.get("subject"),
            label=opened.encoder.edit(row["prompt"], str(row["target"])).target_ids,
            key=record.key,
            tokens=record.tokens if len(record.tokens) else None,
            block=name,
            radius=opened.radius,
        )
        for row, record, name in zip(rows, records, names, strict=True)
    ]


if __name__ == "__main__":
    main()
