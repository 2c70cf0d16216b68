"""The published data sets, in samples of their shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.datasets import EditRequest, load_accurate, load_locality
from melo_cli.datasets.published import CUT, SHORTEST, cut_text
from melo_cli.errors import DatasetError
from melo_cli.recipe import DatasetSection

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]
Write = Callable[..., str]


def locality_of(path: str, task: str, reporter: Any, **settings: Any) -> list[tuple[str, str | None]]:
    return load_locality(DatasetSection(edits="e", locality=path, **settings), task, reporter)


# SCOTUS


def test_scotus_labels_are_kept_as_text(jsonl: Write, edits_of: Edits) -> None:
    path = jsonl({"text": "a", "label": 3, "term": 2010}, {"text": "b", "label": "CivilRights"})
    assert edits_of(path, "scotus") == [
        EditRequest("a", "3", metadata={"term": 2010}),
        EditRequest("b", "CivilRights"),
    ]


def test_scotus_reads_from_parquet_and_csv(tmp_path: Path, edits_of: Edits) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [3]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,label\na,3\n")
    expected = [EditRequest("a", "3")]
    assert edits_of(str(tmp_path / "a.parquet"), "scotus") == expected
    assert edits_of(str(tmp_path / "a.csv"), "scotus") == expected


@pytest.mark.parametrize("label", [True, 1.5, None, "", ["a"]])
def test_scotus_refuses_what_is_no_class(label: Any, jsonl: Write, fault_of: Fault) -> None:
    assert "rows.jsonl:1: label is" in fault_of(jsonl({"text": "a", "label": label}), "scotus")


def test_classes_are_no_answers_to_questions(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"text": "a", "label": 3}), "zsre")
    assert "scotus rows cannot be used for the task zsre; their tasks are custom, scotus" in message


# KnowEdit


KNOWEDIT = {
    "subject": "Ida Holm",
    "prompt": "The name of the country which Ida Holm is from is",
    "target_new": "Peru",
    "ground_truth": [["Denmark", "Kingdom of Denmark"]],
    "rephrase": ["Where is Ida Holm from?"],
    "portability": {"Reasoning": [{"prompt": "Ida lives in", "ground_truth": [["Lima"]]}]},
    "locality": {
        "Relation_Specificity": [{"prompt": "The gender of Ida Holm is", "ground_truth": [["female"]]}],
        "Forgetfulness": [
            {"prompt": "The country of Ida Holm, which is not Peru, is", "ground_truth": "Denmark"},
            {"prompt": "x", "ground_truth": ""},
        ],
    },
}


def test_knowedit_rows_bring_other_questions_about_their_subjects(
    tmp_path: Path, edits_of: Edits, reporter: Any
) -> None:
    path = tmp_path / "knowedit.json"
    path.write_text(json.dumps([KNOWEDIT]))
    [edit] = edits_of(str(path), "counterfact")
    assert (edit.prompt, edit.target, edit.subject) == (KNOWEDIT["prompt"], "Peru", "Ida Holm")
    assert edit.rephrases == ("Where is Ida Holm from?",)
    assert edit.locality == (
        ("The gender of Ida Holm is", "female"),
        ("The country of Ida Holm, which is not Peru, is", "Denmark"),
        ("x", None),
    )
    assert edit.metadata == {name: KNOWEDIT[name] for name in ("ground_truth", "portability")}
    assert len(reporter.warnings) == 1 and "1 unrelated prompt with an empty answer" in reporter.warnings[0]
    assert locality_of(str(path), "counterfact", reporter) == list(edit.locality)


def test_a_knowedit_row_needs_no_more_than_prompt_and_target(jsonl: Write, edits_of: Edits) -> None:
    path = jsonl(
        {"prompt": "a", "target_new": "b"}, {"prompt": "c", "target_new": [["d", "e"]], "rephrase": "f"}
    )
    assert edits_of(path) == [EditRequest("a", "b"), EditRequest("c", "d", ("f",), aliases=("e",))]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"target_new": ""}, "target_new is empty"),
        ({"prompt": " "}, "prompt is empty"),
        ({"rephrase": [3]}, "rephrase is a list; it must be a text or a list of texts"),
        ({"locality": 3}, "locality is a number (3)"),
        ({"locality": {"X": "y"}}, "locality.X is text; it must be a list of {prompt, ground_truth}"),
        ({"locality": {"X": [{"prompt": ""}]}}, "locality.X[0].prompt is empty"),
    ],
)
def test_a_faulty_knowedit_row_says_where(
    jsonl: Write, fault_of: Fault, changes: dict[str, Any], line: str
) -> None:
    message = fault_of(jsonl({**KNOWEDIT, **changes}))
    assert "rows.jsonl:1: " in message and line in message


# MEND's zsRE


ZSRE = {
    "id": "x1",
    "input": "Where was it born?",
    "output": [{"answer": "Oslo", "provenance": [{"title": "It"}]}, {"answer": "Kristiania"}],
    "prediction": "Bergen",
    "alternatives": ["Rome"],
    "filtered_rephrases": ["Where does it come from?", "Where was it born?", ""],
    "logit": -0.5,
}


def test_zsre_takes_the_first_answer_and_all_rephrases(jsonl: Write, edits_of: Edits, reporter: Any) -> None:
    path = jsonl({**ZSRE, "subject": "it"})
    assert edits_of(path, "zsre") == [
        EditRequest(
            "Where was it born?",
            "Oslo",
            ("Where does it come from?",),
            subject="it",
            metadata={"id": "x1", "prediction": "Bergen", "alternatives": ["Rome"], "logit": -0.5},
            aliases=("Kristiania",),
        )
    ]
    assert reporter.warnings == [f"{path}: 2 rephrases dropped: 1 empty, 1 equal to the prompt"]


@pytest.mark.parametrize("output", [[], [{}], "Oslo", [{"answer": ""}], [{"answer": {}}]])
def test_zsre_needs_an_answer(output: Any, jsonl: Write, fault_of: Fault) -> None:
    assert "rows.jsonl:1: output[0].answer is" in fault_of(jsonl({**ZSRE, "output": output}), "zsre")


# Natural Questions


@pytest.fixture
def nq_file(tmp_path: Path) -> str:
    path = tmp_path / "nq_train.json"
    columns = {"questions": ["who sang it", "when", "why"], "answers": ["Ada", ["1999", "in 1999"], []]}
    path.write_text(json.dumps(columns))
    return str(path)


def test_nq_gives_unrelated_questions_with_their_first_answer(nq_file: str, reporter: Any) -> None:
    assert locality_of(nq_file, "zsre", reporter) == [("who sang it", "Ada"), ("when", "1999"), ("why", None)]
    assert len(reporter.warnings) == 1
    assert "1 unrelated prompt with an empty answer" in reporter.warnings[0]


def test_nq_as_edits_keeps_every_answer(
    tmp_path: Path, nq_file: str, edits_of: Edits, fault_of: Fault
) -> None:
    assert "nq_train.json: item 3: answers is empty" in fault_of(nq_file, "zsre")
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"questions": ["a", "b"], "answers": ["x", ["y", "z"]]}))
    assert edits_of(str(path), "zsre") == [
        EditRequest("a", "x", metadata={"answers": ["x"]}),
        EditRequest("b", "y", metadata={"answers": ["y", "z"]}, aliases=("z",)),
    ]


def test_questions_beside_a_classifier_have_no_true_class(nq_file: str, reporter: Any) -> None:
    assert [answer for _, answer in locality_of(nq_file, "scotus", reporter)] == [None] * 3
    assert "nq rows have no answers for the task scotus" in reporter.warnings[-1]


# OpenWebText


def test_web_text_is_cut_at_word_boundaries(jsonl: Write, reporter: Any) -> None:
    words = [f"word{number}" for number in range(200)]
    text = "\n".join([" ".join(words[:100]), " ".join(words[100:])])
    path = jsonl({"text": text}, {"text": "one two three four five"}, {"text": "too short"}, {"text": ""})
    long, short = locality_of(path, "hallucination", reporter)
    prompt, continuation = long
    assert continuation is not None
    assert text.startswith(f"{prompt} {continuation} word")
    assert CUT - 10 < len(prompt) <= CUT
    assert CUT - 10 < len(continuation) <= CUT
    assert short == ("one two", "three four five")
    assert reporter.warnings == [f"{path}: 2 texts left out, because they are too short to cut in two"]


@given(st.text(st.sampled_from("ab \n.文"), max_size=900))
def test_a_cut_loses_nothing_but_white_space_and_splits_no_word(text: str) -> None:
    parts = cut_text(text)
    if parts is None:
        assert len(text.strip()) < SHORTEST
        return
    prompt, continuation = parts
    stripped = text.strip()
    assert stripped.startswith(prompt)
    rest = stripped[len(prompt) :]
    assert rest.lstrip().startswith(continuation)
    assert 0 < len(prompt) <= CUT
    assert 0 < len(continuation) <= CUT
    if any(character.isspace() for character in prompt):
        assert rest[0].isspace()


def test_a_word_that_ends_at_the_limit_is_kept_whole() -> None:
    assert cut_text("ab cdefghi jklmnopqrs") == ("ab cdefghi", "jklmnopqrs")


def test_web_text_holds_no_edits(jsonl: Write, fault_of: Fault) -> None:
    path = jsonl({"text": "some words of no edit"})
    assert 'lacks the field "label"' in fault_of(path)
    assert "documents hold no edits" in fault_of(path, format="openwebtext")


# Telling the format


def test_a_named_format_that_does_not_fit_says_which_does(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"text": "a", "label": 1}), "scotus", format="mend-zsre")
    assert (
        'is not a row of the format mend-zsre: it lacks the field "input"; '
        "its fields match dataset.format=scotus" in message
    )


def test_a_named_format_that_nothing_fits_lists_the_fields(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"Prompt": "a", "target": "1"}), format="melo")
    assert 'lacks the field "prompt"; fields found: Prompt, target; did you mean Prompt?' in message


def test_fields_of_no_known_format_list_what_is_known(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl({"foo": "a", "bar": "b" * 99}))
    assert "rows.jsonl:1: has fields of no known format (foo, bar)" in message
    assert 'name what is asked "prompt" and the answer "target"' in message
    assert "known formats need melo: prompt, target; knowedit: prompt, target_new; " in message
    assert 'the row: {"foo": "a", "bar": "bbb' in message and message.endswith('bbb..."}')


def test_the_error_says_what_a_row_that_nearly_fits_lacks(jsonl: Write, fault_of: Fault) -> None:
    assert 'lacks the field "target"; fields found: prompt, answer' in fault_of(
        jsonl({"prompt": "a", "answer": "b"})
    )
    assert 'lacks the field "annotation"' in fault_of(jsonl({"gpt3_sentences": [], "wiki_bio_text": "a"}))


# wiki_bio_gpt3_hallucination


BIO = {
    "gpt3_text": "Ada was born in 1900. She sang. She died in 1980.",
    "wiki_bio_text": "Ada Diaz (born Jan. 2, 1901) is a singer. She lives in St. Louis.",
    "gpt3_sentences": ["Ada was born in 1900.", "She sang.", "She died in 1980."],
    "annotation": ["major_inaccurate", "accurate", "minor_inaccurate"],
    "wiki_bio_test_idx": 62464,
    "gpt3_text_samples": ["x", "y"],
}
OTHER = {**BIO, "gpt3_sentences": ["He ran."], "annotation": ["accurate"], "wiki_bio_test_idx": 5}


@pytest.fixture
def concepts(tmp_path: Path) -> str:
    path = tmp_path / "concepts.txt"
    path.write_text("ada diaz -lrb- singer -rrb-\r\nbo chen\n", encoding="utf-8")
    return str(path)


def test_inaccurate_sentences_become_edits(jsonl: Write, concepts: str, edits_of: Edits) -> None:
    first, last = edits_of(jsonl(BIO, OTHER), "hallucination", concepts=concepts)
    header = "This is a Wikipedia passage about ada diaz singer."
    assert first.prompt == header
    assert first.target == "Ada Diaz (born Jan. 2, 1901) is a singer."
    assert last.prompt == f"{header} Ada was born in 1900. She sang."
    assert last.target == "She lives in St. Louis."  # the last one: Wikipedia has fewer sentences
    assert first.subject == "ada diaz singer"
    assert last.metadata == {
        "original": "She died in 1980.",
        "annotation": "minor_inaccurate",
        "sentence": 2,
        "wiki_bio_test_idx": 62464,
    }


def test_accurate_sentences_are_accurate_text(jsonl: Write, concepts: str, reporter: Any) -> None:
    section = DatasetSection(edits="e", accurate=jsonl(BIO, OTHER), concepts=concepts)
    header = "This is a Wikipedia passage about"
    assert load_accurate(section, "hallucination", reporter) == [
        (f"{header} ada diaz singer. Ada was born in 1900.", "She sang."),
        (f"{header} bo chen.", "He ran."),
    ]


def test_without_names_the_error_says_how_to_make_them(jsonl: Write, fault_of: Fault) -> None:
    message = fault_of(jsonl(BIO), "hallucination")
    assert "do not name their subjects; set dataset.concepts to a text file with one name a row" in message
    assert "wiki_bio_test_idx" in message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"ada\nbo\ncy\n", "names.txt: holds 3 names for 2 passages"),
        (b"ada\n\nbo\n", "names.txt:2: the line is empty"),
        (b"ada\n\xff\n", "names.txt:2: is not UTF-8"),
    ],
)
def test_names_must_match_the_rows(
    content: bytes, line: str, tmp_path: Path, jsonl: Write, fault_of: Fault
) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    assert line in fault_of(jsonl(BIO, OTHER), "hallucination", concepts=str(tmp_path / "names.txt"))
    assert "no such file" in fault_of(jsonl(BIO), "hallucination", concepts=str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"annotation": ["accurate"]}, "has 3 sentences and 1 annotations"),
        ({"annotation": ["accurate", "wrong", "accurate"]}, 'annotation[1] is "wrong"'),
        ({"gpt3_sentences": "Ada."}, "gpt3_sentences is text; it must be a list"),
        ({"wiki_bio_text": " "}, "wiki_bio_text is empty"),
    ],
)
def test_a_passage_that_does_not_hold_together_is_refused(
    changes: dict[str, Any], line: str, jsonl: Write, concepts: str, fault_of: Fault
) -> None:
    assert f"rows.jsonl:1: {line}" in fault_of(
        jsonl({**BIO, **changes}, OTHER), "hallucination", concepts=concepts
    )


def test_passages_without_a_fault_hold_no_edits(
    tmp_path: Path, jsonl: Write, fault_of: Fault, reporter: Any
) -> None:
    (tmp_path / "one.txt").write_text("bo\n")
    names = str(tmp_path / "one.txt")
    assert "holds no edits" in fault_of(jsonl(OTHER), "hallucination", concepts=names)
    wrong = {**OTHER, "annotation": ["major_inaccurate"]}
    with pytest.raises(DatasetError, match="holds no accurate text"):
        load_accurate(
            DatasetSection(edits="e", accurate=jsonl(wrong), concepts=names), "hallucination", reporter
        )
