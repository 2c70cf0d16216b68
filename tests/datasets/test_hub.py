"""Hub data sets: the optional extra, the split for each role, and what goes wrong on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from melo_cli.datasets import EditRequest, load_locality
from melo_cli.recipe import DatasetSection

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]


class FakeHub:
    """Stands in for the `datasets` package: named splits, and the calls made."""

    def __init__(self) -> None:
        self.splits: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[tuple[str, str | None, str | None]] = []
        self.error: Exception | None = None

    def get_dataset_split_names(self, name: str, revision: str | None = None) -> list[str]:
        if self.error:
            raise self.error
        return list(self.splits)

    def load_dataset(self, name: str, split: str, revision: str | None = None) -> list[dict[str, Any]]:
        self.calls.append((name, split, revision))
        if split.partition("[")[0] not in self.splits:
            raise ValueError(f'Unknown split "{split}".\nSecond line')
        return self.splits[split.partition("[")[0]]


class FakeDatasetsError(Exception):
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    package, exceptions = ModuleType("datasets"), ModuleType("datasets.exceptions")
    package.__dict__.update(
        load_dataset=fake.load_dataset, get_dataset_split_names=fake.get_dataset_split_names
    )
    exceptions.__dict__.update(DatasetsError=FakeDatasetsError)
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", exceptions)
    yield fake


@pytest.fixture
def scotus(hub: FakeHub) -> FakeHub:
    hub.splits = {"train": [{"text": "old", "label": 1}], "test": [{"text": "new", "label": 2}]}
    return hub


def test_without_the_extra_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, fault_of: Fault
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = fault_of("tomh/grace-scotus", "scotus")
    assert message.startswith("tomh/grace-scotus: ")
    assert message.endswith('pip install "melo-cli[datasets]"')


def test_edits_come_from_the_test_split_and_unrelated_from_the_training_split(
    scotus: FakeHub, edits_of: Edits, reporter: Any
) -> None:
    assert edits_of("tomh/grace-scotus", "scotus") == [EditRequest("new", "2")]
    section = DatasetSection(edits="e", locality="tomh/grace-scotus", split="test")
    assert load_locality(section, "scotus", reporter) == [("old", "1")]
    assert scotus.calls == [("tomh/grace-scotus", "test", None), ("tomh/grace-scotus", "train", None)]


def test_a_split_and_a_revision_can_be_named(scotus: FakeHub, edits_of: Edits) -> None:
    assert edits_of("o/n@refs/convert/parquet", "scotus", split="train[:9]") == [EditRequest("old", "1")]
    assert scotus.calls == [("o/n", "train[:9]", "refs/convert/parquet")]


def test_the_only_split_is_taken_whatever_its_name(hub: FakeHub, edits_of: Edits) -> None:
    hub.splits = {"odd": [{"prompt": "p", "target": "t"}]}
    assert edits_of("name") == [EditRequest("p", "t")]


def test_strange_splits_are_listed(hub: FakeHub, fault_of: Fault) -> None:
    hub.splits = {"odd": [], "even": []}
    assert "o/n: has the splits odd, even; name a split with dataset.split" in fault_of("o/n")


def test_a_fault_in_a_row_names_the_split_and_the_row(scotus: FakeHub, fault_of: Fault) -> None:
    scotus.splits["test"].append({"text": "", "label": 1})
    assert "tomh/grace-scotus (test): row 2: text is empty" in fault_of("tomh/grace-scotus", "scotus")


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionError("no route"), "check the id, the split and the network"),
        (FakeDatasetsError("no such thing"), "check the id, the split and the network"),
        (
            RuntimeError("Dataset scripts are no longer supported, but found n.py"),
            "try o/n@refs/convert/parquet",
        ),
    ],
)
def test_what_the_library_raises_becomes_one_line(
    error: Exception, hint: str, hub: FakeHub, fault_of: Fault
) -> None:
    hub.error = error
    message = fault_of("o/n")
    assert str(error) in message
    assert message.endswith(hint)


def test_a_published_id_with_a_typo_is_put_right(hub: FakeHub, fault_of: Fault) -> None:
    hub.error = FileNotFoundError("Dataset 'tomh/grace-scotu' doesn't exist on the Hub")
    assert fault_of("tomh/grace-scotu").endswith("did you mean tomh/grace-scotus?")


def test_an_unknown_split_is_reported_in_the_first_line_of_the_library(
    scotus: FakeHub, fault_of: Fault
) -> None:
    message = fault_of("tomh/grace-scotus", "scotus", split="nope")
    assert 'Unknown split "nope".' in message
    assert "Second line" not in message
