"""melo's own rows, and the oddities of real data that a loader reports and skips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.datasets import EditRequest, load_accurate, load_locality
from melo_cli.recipe import DatasetSection

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]
Write = Callable[..., str]


def test_prompt_and_target_are_enough(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    assert edits_of(jsonl({"prompt": "p", "target": "t"})) == [EditRequest("p", "t")]
    assert reporter.warnings == []


def test_every_field_is_read(jsonl: Write, edits_of: Edits) -> None:
    row = {
        "id": 7,
        "prompt": "p ",
        "target": " t",
        "rephrases": ["r1", "r2"],
        "locality": [{"prompt": "l1", "target": "a1"}, "l2", {"prompt": "l3"}],
        "locality_prompt": "l4",
        "locality_target": "a4",
        "subject": "s",
        "original": "o",
        "metadata": {"source": {"page": 3}},
    }
    assert edits_of(jsonl(row)) == [
        EditRequest(
            "p ",
            " t",
            ("r1", "r2"),
            (("l1", "a1"), ("l2", None), ("l3", None), ("l4", "a4")),
            "s",
            {"id": 7, "original": "o", "source": {"page": 3}},
        )
    ]


def test_flat_files_hold_lists_as_json_text(tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "prompt,target,rephrases,locality,metadata,subject\n"
        'p,t,"[""r1"", ""r2""]","[{""prompt"": ""l"", ""target"": ""a""}]","{""k"": 1}",s\n'
        "q,u,one rephrase,,,\n"
        "v,w,[see note] what?,,,\n"
    )
    first, second, third = edits_of(str(path))
    assert (first.rephrases, first.locality, first.metadata) == (("r1", "r2"), (("l", "a"),), {"k": 1})
    assert (second.rephrases, second.locality, second.metadata, second.subject) == (
        ("one rephrase",),
        (),
        {},
        None,
    )
    assert third.rephrases == ("[see note] what?",)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("rephrases", [1], "rephrases is a list; it must be a text or a list of texts"),
        ("rephrases", 3, "rephrases is a number (3)"),
        ("locality", 3, "locality is a number (3)"),
        ("locality", [3], "locality[0] is a number (3)"),
        ("locality", [{"target": "a"}], "locality[0].prompt is null"),
        ("locality", [{"prompt": "p", "target": {}}], "locality[0].target is an object"),
        ("locality_prompt", ["a", 3], "locality_prompt[1] is a number (3)"),
        ("locality_target", "a", "locality_prompt is null"),
        ("subject", 3, "subject is a number (3)"),
        ("metadata", ["a"], "metadata is a list; it must be an object"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(
    field: str, value: Any, line: str, jsonl: Write, fault_of: Fault
) -> None:
    message = fault_of(jsonl({"prompt": "p", "target": "t"}, {"prompt": "p", "target": "t", field: value}))
    assert f"rows.jsonl:2: {line}" in message


def test_max_edits_cuts_once_all_are_read(jsonl: Write, edits_of: Edits, fault_of: Fault) -> None:
    rows = [{"prompt": f"p{number}", "target": "t"} for number in range(5)]
    assert [edit.prompt for edit in edits_of(jsonl(*rows), max_edits=2)] == ["p0", "p1"]
    assert "rows.jsonl:6" in fault_of(jsonl(*rows, {"prompt": "p"}), max_edits=2)


def test_empty_locality_answers_are_counted_in_one_warning(
    jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    row = {"prompt": "p", "target": "t", "locality_prompt": "l", "locality_target": ""}
    path = jsonl(row, {**row, "prompt": "q"}, {**row, "prompt": "r", "locality_target": "a"})
    edits = edits_of(path)
    assert [edit.locality for edit in edits] == [(("l", None),), (("l", None),), (("l", "a"),)]
    assert reporter.warnings == [
        f"{path}: 2 unrelated prompts with an empty answer; "
        "locality is measured by agreement with the base model alone"
    ]


def test_rephrases_that_say_nothing_new_are_dropped_and_counted(
    jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    path = jsonl({"prompt": "p", "target": "t", "rephrases": ["", "r", "p", " "]})
    assert edits_of(path)[0].rephrases == ("r",)
    assert reporter.warnings == [f"{path}: 3 rephrases dropped: 2 empty, 1 equal to the prompt"]


def test_repeated_prompts_stay_and_are_counted_in_one_warning(
    jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    pairs = [("p", "a"), ("q", "a"), ("p", "b"), ("q", "a"), ("p", "c")]
    path = jsonl(*({"prompt": prompt, "target": target} for prompt, target in pairs))
    assert [(edit.prompt, edit.target) for edit in edits_of(path)] == pairs
    (warning,) = reporter.warnings
    assert warning.startswith(f"{path}: 2 edits for a prompt that an earlier row gives another target")
    assert warning.endswith("1 edit repeated word for word")


def test_only_edits_that_are_kept_count_as_repeated(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    edits_of(jsonl({"prompt": "p", "target": "a"}, {"prompt": "p", "target": "b"}), max_edits=1)
    assert reporter.warnings == []


def test_a_field_that_looks_misspelt_is_reported_once(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    row = {"prompt": "p", "target": "t", "rephrasess": ["r"], "original": "o"}
    path = jsonl(row, {**row, "prompt": "q"})
    assert edits_of(path)[0].metadata == {"rephrasess": ["r"], "original": "o"}
    assert reporter.warnings == [
        f'{path}: the field "rephrasess" is kept as metadata; did you mean rephrases?'
    ]


def locality_of(path: str, task: str, reporter: Any, **settings: Any) -> list[tuple[str, str | None]]:
    return load_locality(DatasetSection(edits="e", locality=path, **settings), task, reporter)


def test_unrelated_prompts_may_lack_an_answer(jsonl: Write, reporter: Any) -> None:
    path = jsonl({"prompt": "p"}, {"prompt": "q", "target": "a"}, {"prompt": "r", "target": ""})
    assert locality_of(path, "custom", reporter) == [("p", None), ("q", "a"), ("r", None)]
    assert len(reporter.warnings) == 1


def test_rows_with_locality_fields_give_those_pairs(jsonl: Write, reporter: Any) -> None:
    rows = [
        {"prompt": "p", "target": "t", "locality_prompt": "l1", "locality_target": "a"},
        {"prompt": "p", "target": "t", "locality": ["l2", {"prompt": "l3", "target": "b"}]},
    ]
    path = jsonl(*rows)
    assert locality_of(path, "zsre", reporter) == [("l1", "a"), ("l2", None), ("l3", "b")]
    accurate = DatasetSection(edits="e", accurate=path)
    assert load_accurate(accurate, "zsre", reporter) == [("p", "t"), ("p", "t")]


def test_max_locality_cuts(jsonl: Write, reporter: Any) -> None:
    path = jsonl(*({"prompt": f"p{number}"} for number in range(5)))
    assert len(locality_of(path, "custom", reporter, max_locality=3)) == 3


def test_a_section_that_names_none_gives_none(reporter: Any) -> None:
    section = DatasetSection(edits="e")
    assert load_locality(section, "zsre", reporter) == []
    assert load_accurate(section, "zsre", reporter) == []
