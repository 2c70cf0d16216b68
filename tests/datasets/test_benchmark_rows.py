"""The files of the field's benchmarks as their authors and EasyEdit write them, in samples of their shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.datasets import EditRequest, load_locality
from melo_cli.recipe import DatasetSection

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]
Write = Callable[..., str]

REWRITE = {
    "prompt": "{} plays the",
    "relation_id": "P1303",
    "target_new": {"str": "oboe", "id": "Q1"},
    "target_true": {"str": "harp", "id": "Q2"},
    "subject": "Ada Lind",
}
COUNTERFACT = {
    "case_id": 3,
    "requested_rewrite": REWRITE,
    "paraphrase_prompts": ["It rained. Ada Lind performs on the"],
    "neighborhood_prompts": ["Bo Roy plays the", "Cy Ek is known for the"],
    "attribute_prompts": ["Di Ung plays the"],
}
ZSRE = {
    "subject": "Ada Lind",
    "src": "Where did Ada Lind study?",
    "pred": "Oslo",
    "rephrase": "Which town did Ada Lind study in?",
    "alt": "Lund",
    "answers": ["Bergen"],
    "loc": "nq question: who sang it",
    "loc_ans": "Bo Roy",
    "cond": "Bergen >> Lund || Where did Ada Lind study?",
}


def only(edits: list[EditRequest]) -> EditRequest:
    (edit,) = edits
    return edit


def test_counterfact_fills_its_subjects_in(tmp_path: Path, edits_of: Edits, reporter: Any) -> None:
    path = tmp_path / "counterfact.json"
    path.write_text(
        json.dumps([COUNTERFACT, {**COUNTERFACT, "requested_rewrite": REWRITE | {"subject": "Eve"}}])
    )
    first, second = edits_of(str(path), "counterfact")
    assert (first.prompt, first.target, first.subject) == ("Ada Lind plays the", "oboe", "Ada Lind")
    assert second.prompt == "Eve plays the"
    assert first.rephrases == ("It rained. Ada Lind performs on the",)
    assert first.locality == (("Bo Roy plays the", "harp"), ("Cy Ek is known for the", "harp"))
    assert first.metadata == {
        "case_id": 3,
        "attribute_prompts": ["Di Ung plays the"],
        "relation_id": "P1303",
        "target_new": {"str": "oboe", "id": "Q1"},
        "target_true": {"str": "harp", "id": "Q2"},
    }
    assert reporter.warnings == []
    section = DatasetSection(edits="e", locality=str(path))
    assert load_locality(section, "counterfact", reporter)[:2] == list(first.locality)


def test_mquake_gives_an_edit_for_each_rewrite_of_a_case(
    jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    other = REWRITE | {"prompt": "The capital of {} is", "subject": "Ur", "target_new": {"str": "Eridu"}}
    case = {
        "requested_rewrite": [{**REWRITE, "question": "What does Ada Lind play?"}, other],
        "questions": ["Who makes what Ada Lind plays?"],
        "new_answer": "Lorée",
    }
    first, second = edits_of(jsonl(case))
    assert (first.prompt, first.target, first.rephrases) == (
        "Ada Lind plays the",
        "oboe",
        ("What does Ada Lind play?",),
    )
    assert (second.prompt, second.target, second.rephrases) == ("The capital of Ur is", "Eridu", ())
    assert first.metadata["questions"] == second.metadata["questions"] == ["Who makes what Ada Lind plays?"]
    assert reporter.warnings == []


@pytest.mark.parametrize(
    ("rewrite", "line"),
    [
        ("text", "requested_rewrite is text; it must be {prompt, subject, target_new} or a list of such"),
        ([], "requested_rewrite is a list; it must be"),
        ([REWRITE, 3], "rows.jsonl:1, rewrite 2: is a number (3)"),
        ([REWRITE, {"prompt": "p"}], 'rows.jsonl:1, rewrite 2: lacks the field "target_new"'),
        (REWRITE | {"subject": ""}, "the prompt has {}, but the row has no subject to fill in"),
        (REWRITE | {"target_new": {"id": "Q1"}}, "target_new is an object"),
    ],
)
def test_a_faulty_rewrite_says_where(rewrite: Any, line: str, jsonl: Write, fault_of: Fault) -> None:
    assert line in fault_of(jsonl({"requested_rewrite": rewrite}))


def test_zsre_as_rome_and_easyedit_have_it(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    path = jsonl(ZSRE, {**ZSRE, "alt": ""})
    assert edits_of(path, "zsre") == [
        EditRequest(
            "Where did Ada Lind study?",
            "Lund",
            ("Which town did Ada Lind study in?",),
            (("nq question: who sang it", "Bo Roy"),),
            "Ada Lind",
            {name: ZSRE[name] for name in ("pred", "answers", "cond")},
        )
    ]
    assert reporter.warnings == [f"{path}: 1 row left out, because they have no new answer"]


@pytest.mark.parametrize("target", ["target", "target_new"])
@pytest.mark.parametrize("answer", ["locality_ground_truth", "locality_ans", "locality_target"])
@pytest.mark.parametrize("rephrase", ["rephrase_prompt", "ood_rephrase", "paraphrase_prompts", "rephrase"])
def test_the_names_of_easyedit_and_wise_mean_what_they_say(
    target: str, answer: str, rephrase: str, jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    row = {
        "prompt": "p",
        target: "t",
        rephrase: "r",
        "locality_prompt": "l",
        answer: "a",
        "ground_truth": "o",
    }
    assert edits_of(jsonl(row)) == [
        EditRequest("p", "t", ("r",), (("l", "a"),), metadata={"ground_truth": "o"})
    ]
    assert reporter.warnings == []


def test_the_same_rephrase_under_two_names_is_asked_once(jsonl: Write, edits_of: Edits) -> None:
    row = {"prompt": "p", "target": "t", "rephrases": ["r", "s"], "rephrase_prompt": "r"}
    assert only(edits_of(jsonl(row))).rephrases == ("r", "s")


def test_lists_of_locality_prompts_go_with_their_answers(
    jsonl: Write, edits_of: Edits, fault_of: Fault
) -> None:
    row = {"prompt": "p", "target": "t", "locality_prompt": ["l", "m"]}
    assert only(edits_of(jsonl(row))).locality == (("l", None), ("m", None))
    answered = {**row, "locality_ground_truth": ["a", ["b", "c"]]}
    assert only(edits_of(jsonl(answered))).locality == (("l", "a"), ("m", "b"))
    short = {**row, "locality_ground_truth": ["a"]}
    assert "has 2 locality_prompt and 1 locality_ground_truth" in fault_of(jsonl(short))


def test_knowedit_locality_is_read_beside_a_plain_target(jsonl: Write, edits_of: Edits) -> None:
    kinds = {"Relation_Specificity": [{"prompt": "l", "ground_truth": [["a", "b"]]}], "Forgetfulness": []}
    edit = only(edits_of(jsonl({"prompt": "p", "target": "t", "locality": kinds})))
    assert edit.locality == (("l", "a"),)


def test_wikibigedit_and_knowedit_wikibio(jsonl: Write, edits_of: Edits) -> None:
    row = {"update": "p", "ans": "t", "subject": "s", "rephrase": "r", "loc": "l", "loc_ans": "a", "tag": "x"}
    assert edits_of(jsonl(row)) == [
        EditRequest("p", "t", ("r",), (("l", "a"),), subject="s", metadata={"tag": "x"})
    ]
    bio = {"text": "So far.", "labels": "The next.", "concept": "ada", "locality": {}}
    assert edits_of(jsonl(bio)) == [EditRequest("So far.", "The next.", subject="ada")]


# Templates


def test_flat_rows_of_rome_take_their_subjects(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    rows = [
        {"prompt": "{} was founded by", "subject": "Acme", "target": "Ada", "rephrases": ["Who began {}?"]},
        {"prompt": "{} was founded by", "subject": "Zento", "target_new": {"str": "Bo"}},
    ]
    first = only(edits_of(jsonl(rows[0])))
    assert (first.prompt, first.rephrases) == ("Acme was founded by", ("Who began Acme?",))
    assert only(edits_of(jsonl(rows[1]))).prompt == "Zento was founded by"
    assert reporter.warnings == []


@pytest.mark.parametrize("order", [1, -1])
def test_among_templates_each_needs_its_subject(order: int, jsonl: Write, fault_of: Fault) -> None:
    rows = [
        {"prompt": "{} was founded by", "target": "Ada", "subject": "Acme"},
        {"prompt": "{} was founded by", "target": "Bo"},
    ]
    message = fault_of(jsonl(*rows[::order]))
    assert "the prompt has {}, but the row has no subject to fill in; give the row a subject" in message
    assert f"rows.jsonl:{rows[::order].index(rows[1]) + 1}: " in message


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What does {} mean in Python?"},
        {"prompt": "What is {} in Python?", "subject": "Python"},
        {"prompt": "What is if x: {} else: {} in C?", "subject": "a block"},
    ],
)
def test_braces_of_code_stay_with_a_word_about_them(
    row: dict[str, Any], jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    assert only(edits_of(jsonl({**row, "target": "t"}))).prompt == row["prompt"]
    (warning,) = reporter.warnings
    assert "1 prompt with {} that was kept" in warning


# Rows that do not fit


def test_rows_of_two_formats_are_refused_where_the_second_begins(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"prompt": "p", "target": "t"}, ZSRE))
    assert "rows.jsonl:2: has the format zsre, but the first row has the format melo" in message
    assert "put each format into its own file" in message


def test_a_target_and_another_target_are_refused(jsonl: Write, edits_of: Edits, fault_of: Fault) -> None:
    row = {"prompt": "p", "target": "t", "target_new": ["t", "u"]}
    assert only(edits_of(jsonl(row))).target == "t"
    assert "has target and a different target_new" in fault_of(jsonl({**row, "target_new": "x"}))


def test_the_error_says_how_to_rename_everyday_names(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"query": "Who?", "response": "Ada"}))
    assert 'rename "query" to "prompt" and "response" to "target"' in message
    message = fault_of(jsonl({"prompt": "Who?", "answer": "Ada"}))
    assert 'lacks the field "target"; fields found: prompt, answer; ' in message
    assert (
        'rename "answer" to "target"; known formats need melo: prompt, target; knowedit: prompt, target_new; '
        "question-answer: question, answer; prompt-completion: prompt, completion"
    ) in message
    assert message.endswith('the row: {"prompt": "Who?", "answer": "Ada"}')
