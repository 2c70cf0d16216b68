"""The rows of the layer table that import-linter cannot hold; it holds the others (pyproject.toml)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import melo_cli
import melo_store

HEAVY = {"torch", "transformers", "peft", "pyarrow", "hnswlib", "numpy", "pydantic", "rich"}
CORE_MAY_IMPORT = {"torch", "numpy", "transformers", "safetensors"} | sys.stdlib_module_names
STORE_MAY_IMPORT = {"melo_store", "numpy", "pyarrow", "hnswlib", "filelock"} | sys.stdlib_module_names

IMPORT_COMMAND_LINE = """
import importlib, json, pkgutil, sys
import melo_cli.app, melo_cli.commands
for module in pkgutil.walk_packages(melo_cli.commands.__path__, "melo_cli.commands."):
    importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_every_module_can_be_imported_first() -> None:
    """No circle of imports, those in functions among them: Python runs the folders above a module before it,
    so a module stands on these too, but for the folders that it lies in itself."""
    graph = grimp.build_graph("melo_cli", "melo_store", cache_dir=None)
    stands_on = {
        name: {
            module
            for imported in graph.find_modules_directly_imported_by(name)
            for module in (imported, *_folders_of(imported))
            if module == imported or not f"{name}.".startswith(f"{module}.")
        }
        for name in graph.modules
    }
    assert len(stands_on) > 250
    try:
        TopologicalSorter(stands_on).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def _folders_of(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def test_importing_the_command_line_loads_no_heavy_library() -> None:
    """At module level, their own imports and those of what they import; inside functions all are free."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_COMMAND_LINE], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(json.loads(run.stdout))
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_the_store_imports_nothing_but_its_few_libraries() -> None:
    foreign = {
        f"{path.name}: {name}"
        for path in Path(melo_store.__file__).parent.rglob("*.py")
        for name in imported_packages(path)
        if name not in STORE_MAY_IMPORT
    }
    assert foreign == set()


def test_the_store_is_imported_by_its_package_name() -> None:
    """The folder is called `store`, which works in a checkout and not where melo is installed."""
    ours = (Path(melo_cli.__file__).parent, Path(melo_store.__file__).parent, Path(__file__).parents[1])
    wrong = [
        path.name
        for root in ours
        for path in root.rglob("*.py")
        if "store" in set(imported_packages(path, relative=True))
    ]
    assert wrong == []


def test_what_every_export_carries_along_imports_nothing_of_melo() -> None:
    foreign = {
        f"{path.name}: {name}"
        for path in Path(melo_cli.__file__).parent.joinpath("scope", "core").glob("*.py")
        for name in imported_packages(path, relative=True)
        if name not in CORE_MAY_IMPORT
    }
    assert foreign == set()


def imported_packages(path: Path, *, relative: bool = False) -> Iterator[str]:
    """The packages that a module imports; of its own folder's modules nothing where `relative` lets it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level <= relative, f"{path}: relative import"
            if not node.level:
                yield node.module.partition(".")[0]
