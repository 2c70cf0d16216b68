"""Answers that data give as lists, numbers and objects: the first is trained, all of them count."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melo_cli.datasets import EditRequest, Number, aliases_in
from melo_cli.datasets.request import TARGET_ALIASES

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]
Write = Callable[..., str]


@pytest.mark.parametrize(
    ("value", "target", "aliases"),
    [
        (["Jane Austen", "Austen", "Jane Austen"], "Jane Austen", ("Austen",)),
        ([["a", "b"], ["c"], "", None], "a", ("b", "c")),
        (2006, "2006", ()),
        (2.5, "2.5", ()),
        (True, "true", ()),
        (False, "false", ()),
        (0, "0", ()),
        ([7, "seven"], "7", ("seven",)),
        ({"str": "a", "id": "Q1"}, "a", ()),
        ("[1, 2, 3]", "[1, 2, 3]", ()),
        ('["a", "b"]', '["a", "b"]', ()),
    ],
)
def test_a_target_may_come_in_many_forms(
    value: Any, target: str, aliases: tuple[str, ...], jsonl: Write, edits_of: Edits
) -> None:
    (edit,) = edits_of(jsonl({"prompt": "p", "target": value}))
    assert (edit.target, edit.aliases) == (target, aliases)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([], "target is empty"),
        (["", None], "target is empty"),
        (None, "target is null"),
        ({"text": "a"}, "target is an object"),
        ([[[[[["a"]]]]]], "target is a list"),
        (["a", {"text": "a"}], "target is an object"),
    ],
)
def test_what_is_no_answer_is_reported(value: Any, line: str, jsonl: Write, fault_of: Fault) -> None:
    assert f"rows.jsonl:1: {line}" in fault_of(jsonl({"prompt": "p", "target": value}))


def test_a_cell_holds_several_answers_as_json(tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,target\np,"[""a"", ""b""]"\nq,"[1, 2]"\nr,"{""k"": 1}"\ns,2006\n')
    targets = [(edit.target, edit.aliases) for edit in edits_of(str(path))]
    assert targets == [("a", ("b",)), ("[1, 2]", ()), ('{"k": 1}', ()), ("2006", ())]


def test_parquet_gives_days_and_numbers_as_text(tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "target": [datetime.date(2006, 5, 4)]}), path)
    assert edits_of(str(path))[0].target == "2006-05-04"


def test_only_whole_numbers_can_be_class_ids(jsonl: Write, edits_of: Edits) -> None:
    rows = [{"prompt": "p", "target": value} for value in (3, "3", 3.0, True)]
    kinds = [isinstance(edit.target, Number) for edit in edits_of(jsonl(*rows))]
    assert kinds == [True, False, False, False]


def test_aliases_stay_with_the_edit_where_a_store_keeps_it(jsonl: Write, edits_of: Edits) -> None:
    (edit,) = edits_of(jsonl({"prompt": "p", "target": ["a", "b"], "id": 3}))
    assert edit.kept_metadata == {"id": 3, TARGET_ALIASES: ["b"]}
    assert aliases_in(edit.kept_metadata) == ("b",)
    again = {"prompt": "p", "target": "a", "metadata": edit.kept_metadata}
    assert edits_of(jsonl(again)) == [edit]
    beside = {"prompt": "p", "target": "a", "id": 3, TARGET_ALIASES: "b"}
    assert edits_of(jsonl(beside)) == [edit]
    assert EditRequest("p", "a", metadata={"id": 3}).kept_metadata == {"id": 3}


def test_locality_answers_take_the_first_of_several(jsonl: Write, edits_of: Edits) -> None:
    pairs = [{"prompt": "l", "target": ["a", "b"]}, {"prompt": "m", "target": 5}]
    (edit,) = edits_of(jsonl({"prompt": "p", "target": "t", "locality": pairs}))
    assert edit.locality == (("l", "a"), ("m", "5"))
