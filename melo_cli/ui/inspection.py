"""`melo inspect`: a model's modules, with blocks that repeat folded into one row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.errors import ModelError
from melo_cli.ui.elements import Table
from melo_cli.ui.terminal import Terminal

if TYPE_CHECKING:
    from melo_cli.models.architecture import ModuleInfo
    from melo_cli.models.base_model import BaseModel

_BLOCK_NUMBER = re.compile(r"(?P<before>.*?\.)(?P<number>\d+)(?P<after>\..*)")


def show_inspection(terminal: Terminal, model: str, loaded: BaseModel, *, fold: bool) -> None:
    """What the model is, its modules, and the defaults of a recipe."""
    from melo_cli.models.architecture import list_modules

    facts = inspection_document(model, loaded)
    terminal.fields(
        [
            ("model", model),
            ("architecture", f"{facts['architecture']}, {loaded.kind.described}"),
            ("tasks", ", ".join(facts["tasks"])),
            ("prompt limit", "none" if loaded.max_length is None else f"{loaded.max_length} tokens"),
        ]
    )
    terminal.table(modules_table(list_modules(loaded), fold=fold))
    terminal.heading("defaults for a recipe that leaves them out")
    targets = facts["target_modules"]
    terminal.fields(
        [
            ("key.layer", facts["key_layer"]),
            ("key.pooling", facts["pooling"]),
            *(("lora.target_modules", name) for name in targets or ["none for this architecture: name some"]),
        ]
    )


def inspection_document(model: str, loaded: BaseModel) -> dict[str, Any]:
    """`melo inspect --json`; `target_modules` is null where the architecture has no defaults."""
    from melo_cli.models.architecture import embedding_name, list_modules

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
            for info in list_modules(loaded)
        ],
    }


def modules_table(modules: Sequence[ModuleInfo], *, fold: bool) -> Table:
    """One row a module, or one for all blocks that have the same one."""
    rows: dict[tuple[object, ...], list[str]] = {}
    for info in modules:
        found = _BLOCK_NUMBER.fullmatch(info.name) if fold else None
        place = (found["before"], found["after"]) if found else (info.name,)
        row = (*place, info.type_name, info.shape, info.key_size, info.is_target)
        rows.setdefault(row, []).append(found["number"] if found else "")
    return Table(
        ("module", "type", "in", "out", "key size", "target"),
        [_cells(row, numbers) for row, numbers in rows.items()],
        right=frozenset(("in", "out", "key size")),
    )


def _cells(row: tuple[Any, ...], numbers: Sequence[str]) -> list[str]:
    *place, type_name, (size_in, size_out), key_size, is_target = row
    name = place[0] if len(place) == 1 else f"{place[0]}{_ranges([int(one) for one in numbers])}{place[1]}"
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
