"""`melo inspect`: a model's modules, with blocks that repeat folded into one row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.errors import ModelError
from melo_cli.ui.elements import Element, Fields, Heading, Table, View

if TYPE_CHECKING:
    from melo_cli.models.architecture import ModuleInfo
    from melo_cli.models.base_model import BaseModel

_BLOCK_NUMBER = re.compile(r"(?P<before>.*?\.)(?P<number>\d+)(?P<after>\..*)")


def inspection_view(model: str, loaded: BaseModel, *, fold: bool) -> View:
    """What the model is, its modules, and the defaults of a recipe.

    Args:
        fold: modules that repeat in each block share a row.
    """
    from melo_cli.models.architecture import list_modules

    modules = list_modules(loaded)
    document = _document(model, loaded, modules)
    targets = document["target_modules"] or ["none for this architecture: name some"]
    elements: list[Element] = [
        Fields(
            [
                ("model", model),
                ("architecture", f"{document['architecture']}, {loaded.kind.described}"),
                ("tasks", ", ".join(document["tasks"])),
                ("prompt limit", "none" if loaded.max_length is None else f"{loaded.max_length} tokens"),
            ]
        ),
        _modules_table(modules, fold=fold),
        Heading("defaults for a recipe that leaves them out"),
        Fields(
            [
                ("key.layer", document["key_layer"]),
                ("key.pooling", document["pooling"]),
                *(("lora.target_modules", name) for name in targets),
            ]
        ),
    ]
    return View(elements, document)


def _document(model: str, loaded: BaseModel, modules: Sequence[ModuleInfo]) -> dict[str, Any]:
    """`target_modules` is null where the architecture has no defaults."""
    from melo_cli.models.architecture import embedding_name

    return {
        "model": model,
        "architecture": loaded.model.config.model_type,
        "kind": loaded.kind.value,
        "tasks": _tasks(loaded),
        "max_length": loaded.max_length,
        "key_layer": embedding_name(loaded),
        "pooling": "mean",
        "target_modules": _default_targets(loaded),
        "modules": [
            {
                "name": info.name,
                "type": info.type_name,
                "shape": info.shape,
                "key_size": info.key_size,
                "target": info.is_target,
            }
            for info in modules
        ],
    }


def _modules_table(modules: Sequence[ModuleInfo], *, fold: bool) -> Table:
    """One row a module, or one for all blocks that have the same one."""
    rows: dict[tuple[object, ...], list[str]] = {}
    for info in modules:
        match = _BLOCK_NUMBER.fullmatch(info.name) if fold else None
        name = (match["before"], match["after"]) if match else (info.name,)
        row = (*name, info.type_name, info.shape, info.key_size, info.is_target)
        rows.setdefault(row, []).append(match["number"] if match else "")
    return Table(
        ("module", "type", "in", "out", "key size", "target"),
        [_cells(row, numbers) for row, numbers in rows.items()],
        right=frozenset(("in", "out", "key size")),
    )


def _cells(row: tuple[Any, ...], numbers: Sequence[str]) -> list[str]:
    *parts, type_name, (size_in, size_out), key_size, is_target = row
    name = parts[0] if len(parts) == 1 else f"{parts[0]}{_ranges([int(one) for one in numbers])}{parts[1]}"
    key = str(key_size) if key_size is not None else "-"
    return [name, type_name, str(size_in), str(size_out), key, "yes" if is_target else "no"]


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3,7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _tasks(loaded: BaseModel) -> list[str]:
    from melo_cli.models.base_model import tasks_of

    return tasks_of(loaded.kind)


def _default_targets(loaded: BaseModel) -> list[str] | None:
    from melo_cli.models.architecture import default_targets

    try:
        return default_targets(loaded)
    except ModelError:
        return None
