"""Reads the YAML of recipes: mappings, lists and scalars, without surprises.

On top of PyYAML's safe loader: a key that stands twice is an error, keys are text, `1e-2` is a number
(YAML 1.1 reads it as text), and tags, anchors and aliases are refused, so that a short text stays small.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from melo_cli.errors import RecipeError
from melo_cli.suggest import did_you_mean

LARGEST_RECIPE = 1 << 20
"""Bytes: far more than any recipe needs, and little enough to read a file named by mistake."""

_EXPONENT_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+\Z")


class _Refused(yaml.MarkedYAMLError):
    """YAML, but not for a recipe."""

    def __init__(self, problem: str, location: yaml.Event | yaml.Node) -> None:
        super().__init__(problem=problem, problem_mark=location.start_mark)  # type: ignore[arg-type] # C's Mark too


class _RecipeLoader(yaml.SafeLoader):
    """The safe loader, stricter."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors and aliases (& and *) are not allowed in a recipe", event)
        if getattr(event, "tag", None):
            raise _Refused("tags (!) are not allowed in a recipe", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _Refused(f"the key {key!r} is not text", key_node)
            if key in seen:
                raise _Refused(f'the key "{key}" is repeated', key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_NUMBER, list("-+.0123456789"))


def parse_yaml(text: str, where: str, *, numbered: bool = True) -> Any:
    """The value that `text` holds.

    Args:
        text: one YAML document.
        where: file or option, for the error.
        numbered: add the line to `where`; of no use for an option.

    Raises:
        RecipeError: not YAML, a key twice, a tag, an alias, or nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_RecipeLoader)
    except yaml.MarkedYAMLError as error:
        location = f"{where}:{error.problem_mark.line + 1}" if numbered and error.problem_mark else where
        what = error.problem if isinstance(error, _Refused) else f"is not YAML ({error.problem})"
        raise RecipeError(what or "is not YAML", where=location) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"is not YAML ({error})", where=where) from error
    except ValueError as error:  # a date or number of the right form and no value, such as 2024-13-40
        raise RecipeError(f"is not YAML ({error})", where=where) from error
    except RecursionError as error:
        raise RecipeError("is nested too deeply", where=where) from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping that the file at `path` holds.

    Raises:
        RecipeError: no such file, a folder, unreadable, too large, not UTF-8, empty, not YAML or no mapping.
    """
    where = str(path)
    mapping = parse_yaml(_read_text(path), where)
    if mapping is None:
        raise RecipeError("is empty", where=where, hint="a recipe needs name, task, model and key")
    if not isinstance(mapping, dict):
        kind = "a list" if isinstance(mapping, list) else "one value"
        raise RecipeError(
            f"holds {kind}", where=where, hint="a recipe consists of keys and values, such as name: my_edits"
        )
    return mapping


def _read_text(path: Path) -> str:
    where = str(path)
    try:
        if path.is_dir():
            raise RecipeError("is a folder", where=where, hint="name the YAML file in it")
        with path.open("rb") as file:
            data = file.read(LARGEST_RECIPE + 1)
    except FileNotFoundError as error:
        raise RecipeError("no such file", where=where, hint=_files_like(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RecipeError(f"cannot be read ({error})", where=where) from error
    if len(data) > LARGEST_RECIPE:
        raise RecipeError("is larger than 1 MiB, the limit for a recipe", where=where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"is not UTF-8 (byte {error.start + 1})", where=f"{where}:{line}", hint="save it as UTF-8"
        ) from error


def _files_like(path: Path) -> str:
    if path.parent.is_dir():
        recipes = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
        clause = did_you_mean(path.name, recipes)
        if clause is not None:
            return clause
    return "melo recipes lists those that come with melo"
