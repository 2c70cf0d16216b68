"""Measures the peak memory and the time of every kind of export, each in a process of its own.

    python benchmarks/make_random_model.py --shape gpt2-xl --tokenizer FOLDER --out build/gpt2-xl-random
    python benchmarks/export_memory.py --base build/gpt2-xl-random --work build/export-memory

The project is made for the measurement, with random blocks and keys on the base. Exports are not checked,
since that needs the model in memory, and are removed. "Above" is the peak beyond that of an interpreter that
has imported the exports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from melo_cli.models.architecture import default_targets, embedding_name
from melo_cli.models.base_model import load_base_model
from melo_cli.models.fingerprint import weight_files
from melo_cli.models.linear_layers import linear_shape
from melo_cli.recipe import ModelSection, recipe_from_mapping
from melo_cli.runtime.base_reference import base_reference
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.records import LoraSlice, NewEdit
from melo_store.writer import open_writer

KINDS = {
    "peft": ["--format", "peft"],
    "routed": ["--format", "routed"],
    "merged (sum)": ["--merge", "--merge-method", "sum"],
}


def main() -> None:
    """Make the project, run the exports, print a Markdown table."""
    arguments = _arguments()
    project = arguments.work / "project"
    _make_project(arguments.base, project, arguments.blocks, arguments.edits)
    shard = max(path.stat().st_size for path in weight_files(arguments.base))
    interpreter, _ = _run([sys.executable, "-c", "import melo_cli.exporting"])
    print(f"largest shard {shard / 1e9:.2f} GB, interpreter {interpreter / 1e9:.2f} GB")  # noqa: T201
    print("| export | peak GB | above GB | seconds |\n| --- | --- | --- | --- |")  # noqa: T201
    for name, options in KINDS.items():
        folder = arguments.work / "out"
        command = [sys.executable, "-m", "melo_cli", "export", *options, "--check", "0"]
        peak, seconds = _run([*command, "--project", str(project), "--to", str(folder)])
        print(f"| {name} | {peak / 1e9:.2f} | {(peak - interpreter) / 1e9:.2f} | {seconds:.0f} |")  # noqa: T201
        shutil.rmtree(folder)
    shutil.rmtree(arguments.work)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a new folder, removed at the end")
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--edits", type=int, default=4, help="edits a block")
    return parser.parse_args()


def _make_project(folder: Path, path: Path, blocks: int, edits: int) -> None:
    base = load_base_model(ModelSection(name_or_path=str(folder)), "custom", weights=False)
    targets = default_targets(base)
    shapes = {name: linear_shape(base.model.get_submodule(name)) for name in targets}
    layer = embedding_name(base)
    size = base.model.get_submodule(layer).embedding_dim
    recipe = recipe_from_mapping(
        {
            "name": "random",
            "task": "custom",
            "model": {"name_or_path": str(folder)},
            "lora": {"target_modules": targets, "rank": 2, "alpha": 40},
            "key": {"layer": layer, "pooling": "mean", "radius": 1.0},
        }
    )
    versions = library_versions()
    project = Project.create(
        path,
        name="random",
        base=base_reference(base),
        recipe=recipe.to_mapping(),
        seed=0,
        versions=versions,
    )
    drawn = np.random.default_rng(0)
    with open_writer(project) as writer:
        for block in range(blocks):
            slices = {name: _slice(drawn, *shape) for name, shape in shapes.items()}
            batch = [_edit(drawn, size, f"prompt {block}.{i}", block) for i in range(edits)]
            staged = writer.stage(batch, {"new": slices})
            staged.commit(recipe=recipe.to_mapping(), seed=0, versions=versions, command="benchmark")


def _slice(drawn: np.random.Generator, inputs: int, outputs: int) -> LoraSlice:
    A = drawn.standard_normal((2, inputs)).astype(np.float32)
    return LoraSlice(A, drawn.standard_normal((outputs, 2)).astype(np.float32), 20.0)


def _edit(drawn: np.random.Generator, size: int, prompt: str, label: int) -> NewEdit:
    key = (drawn.standard_normal(size) * 10).astype(np.float32)
    return NewEdit(prompt, "answer", label=(label, 1), key=key, block="new", radius=1.0)


def _run(command: list[str]) -> tuple[int, float]:
    """Peak resident bytes and seconds of one process."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with code {process.returncode}")
    return usage.ru_maxrss * 1024, time.monotonic() - started


if __name__ == "__main__":
    main()
