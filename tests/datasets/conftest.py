"""A reporter that remembers, and files with rows in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.datasets import EditRequest, load_edits
from melo_cli.errors import DatasetError
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import SilentReporter


class Remembering(SilentReporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def reporter() -> Remembering:
    return Remembering()


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Write rows, one a line, and give the path."""

    def write(*rows: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def edits_of(reporter: Remembering) -> Callable[..., list[EditRequest]]:
    """Load the edits of a file with the settings given."""

    def load(path: str, task: str = "custom", **settings: Any) -> list[EditRequest]:
        return load_edits(DatasetSection(edits=path, **settings), task, reporter)

    return load


@pytest.fixture
def fault_of(edits_of: Callable[..., list[EditRequest]]) -> Callable[..., str]:
    """The one line for a file that holds no edits, checked to end the program with 2."""

    def fault(path: str, task: str = "custom", **settings: Any) -> str:
        with pytest.raises(DatasetError) as caught:
            edits_of(path, task, **settings)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return fault
