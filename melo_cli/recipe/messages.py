"""Error messages of recipes: pydantic's errors as clauses with their dotted paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from melo_cli.recipe.schema import Recipe
from melo_cli.suggest import nearest

_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "model_type": "must be a section of keys and values",
    "model_attributes_type": "must be a section of keys and values",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le:g}",
}


def describe(error: ValidationError, overridden: Sequence[tuple[str, ...]]) -> str:
    """All faults of a recipe in one line, those from `--set` marked as such.

    Args:
        error: what pydantic found in `Recipe`.
        overridden: the paths that `--set` options wrote to.
    """
    return "; ".join(clause for detail in error.errors() for clause in _clauses(detail, overridden))


def _clauses(detail: ErrorDetails, overridden: Sequence[tuple[str, ...]]) -> Iterator[str]:
    path = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        for leaf in _required_below(path):
            yield f"{_dotted(leaf)}: is missing"
        return
    origin = " (--set)" if any(path[: len(written)] == written for written in overridden) else ""
    yield f"{_dotted(path)}{origin}: {_fault(detail, path)}"


def _fault(detail: ErrorDetails, path: tuple[str, ...]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key, {_meant(path)}"
    if kind == "invalid_key":
        return "keys must be text"
    if kind in ("string_too_short", "string_pattern_mismatch"):
        return "must not be empty"
    if kind == "literal_error":
        return f"must be {_choices(path)}, found {_shown(value)}"
    if kind == "value_error":
        return f"{context['error']}{_value_clause(value)}"
    if kind == "string_type" and value is not None and not isinstance(value, dict | list):
        return f"must be text, found {_shown(value)}, so put it in quotes"
    message = _KINDS[kind].format(**context) if kind in _KINDS else detail["msg"]
    return f"{message}, found {_shown(value)}"


def _value_clause(value: object) -> str:
    return "" if isinstance(value, dict | BaseModel) else f", found {_shown(value)}"


def _shown(value: object) -> str:
    """A value as short text, the way YAML users know it."""
    text = (
        json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def _choices(path: tuple[str, ...]) -> str:
    names = get_args(_SECTIONS[path[:-1]].model_fields[path[-1]].annotation)
    return f"one of {', '.join(names)}" if len(names) > 2 else " or ".join(names)


def _meant(path: tuple[str, ...]) -> str:
    """The nearest known key: beside it in its section, else anywhere, else the keys of its section."""
    siblings = list(_SECTIONS[path[:-1]].model_fields)
    near = nearest(path[-1], siblings, count=1)
    if near:
        return f"did you mean {_dotted((*path[:-1], near[0]))}?"
    elsewhere = {
        name: (*section, name) for section, model in _SECTIONS.items() for name in model.model_fields
    }
    near = nearest(path[-1], elsewhere, count=1, cutoff=0.8)
    if near:
        return f"did you mean {_dotted(elsewhere[near[0]])}?"
    return f"known keys here are {', '.join(siblings)}"


def _required_below(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The required values in a missing section, so that the user sees all there is to add."""
    if path not in _SECTIONS:
        yield path
        return
    for name, field in _SECTIONS[path].model_fields.items():
        if field.is_required():
            yield from _required_below((*path, name))


def _dotted(path: tuple[str, ...]) -> str:
    """A path as it is written in `--set`; what a terminal could stumble over is escaped."""
    return ".".join(part if part.isprintable() else json.dumps(part) for part in path) or "recipe"


def _sections(
    section: type[BaseModel], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every section of the schema with its path, `section` itself first."""
    yield path, section
    for name, field in section.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):  # Section, or Section | None
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _sections(part, (*path, name))


_SECTIONS = dict(_sections(Recipe, ()))
