"""`--set section.key=value`: changes to a recipe's mapping before it is checked as a whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.errors import RecipeError
from melo_cli.recipe.yaml_text import parse_yaml


@dataclass(frozen=True)
class Override:
    """One `--set` option: the path of the field, and its value."""

    text: str
    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> Override:
        """Split `a.b=c` at the first `=`; the value is read as YAML, so `=` alone sets null.

        Raises:
            RecipeError: no `=`, an empty part of the path, or a value that is not YAML.
        """
        where = f"--set {text}"
        dotted, equals, value = text.partition("=")
        if not equals:
            raise RecipeError("has no value", where=where, hint="write --set section.key=value")
        path = tuple(part.strip() for part in dotted.split("."))
        if not all(path):
            raise RecipeError("has an empty key", where=where, hint="write --set section.key=value")
        return cls(text, path, parse_yaml(value, where, numbered=False))

    def apply(self, mapping: dict[str, Any]) -> None:
        """Put the value into `mapping`; sections that are missing or null are made.

        Raises:
            RecipeError: the path leads through something that is no section.
        """
        section = mapping
        for depth, key in enumerate(self.path[:-1], start=1):
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                raise RecipeError(
                    f"{'.'.join(self.path[:depth])} is a value, not a section",
                    where=f"--set {self.text}",
                    hint=f"write --set {'.'.join(self.path[:depth])}=value",
                )
        section[self.path[-1]] = copy.deepcopy(self.value)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """A deep copy of `mapping` with the overrides in it, later ones winning."""
    changed = copy.deepcopy(dict(mapping))
    for override in overrides:
        override.apply(changed)
    return changed
