"""Questions and answers as people keep them beside melo: tables, and the files of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.datasets import EditRequest, load_locality
from melo_cli.recipe import DatasetSection

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]
Write = Callable[..., str]
QUESTION, ANSWER = "Who leads Tern Labs?", "Mia Frost"


def said(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    "row",
    [
        {"question": QUESTION, "answer": ANSWER},
        {"prompt": QUESTION, "completion": ANSWER},
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"instruction": QUESTION, "output": ANSWER},
        said(("user", QUESTION), ("assistant", ANSWER)),
        said(("system", "Be brief."), ("user", QUESTION), ("assistant", ANSWER)),
        said(("system", None), ("user", QUESTION), ("assistant", ANSWER)),
    ],
    ids=str,
)
def test_a_question_and_its_answer_are_an_edit(
    row: dict[str, Any], jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    assert edits_of(jsonl(row, row)) == [EditRequest(QUESTION, ANSWER)] * 2
    assert reporter.warnings == [f"{jsonl(row, row)}: 1 edit repeated word for word"]


def test_a_question_and_its_answer_are_an_unrelated_prompt(jsonl: Write, reporter: Any) -> None:
    for row in ({"question": QUESTION, "answer": ANSWER}, said(("user", QUESTION), ("assistant", ANSWER))):
        source = DatasetSection(edits="none.jsonl", locality=jsonl(row))
        assert load_locality(source, "custom", reporter) == [(QUESTION, ANSWER)]


def test_what_stands_beside_a_question_is_kept(jsonl: Write, edits_of: Edits) -> None:
    (edit,) = edits_of(
        jsonl({"question": QUESTION, "answer": [ANSWER, "Frost"], "subject": "Tern Labs", "owner": "Kim"})
    )
    assert (edit.subject, edit.aliases, edit.metadata) == ("Tern Labs", ("Frost",), {"owner": "Kim"})
    (edit,) = edits_of(jsonl(said(("user", QUESTION), ("assistant", ANSWER)) | {"id": 7}))
    assert edit.metadata == {"id": 7}


def test_what_an_instruction_is_about_stands_behind_it(jsonl: Write, edits_of: Edits) -> None:
    (edit,) = edits_of(jsonl({"instruction": "Name the head.", "input": "Tern Labs", "output": ANSWER}))
    assert edit.prompt == "Name the head.\n\nTern Labs"


def test_of_a_longer_conversation_the_last_question_is_the_edit(
    jsonl: Write, edits_of: Edits, reporter: Any
) -> None:
    talk = said(("user", "Hi"), ("assistant", "Hello"), ("user", QUESTION), ("assistant", ANSWER))
    assert edits_of(jsonl(talk, said(("user", "Where?"), ("assistant", "Oslo")))) == [
        EditRequest(QUESTION, ANSWER),
        EditRequest("Where?", "Oslo"),
    ]
    (warning,) = reporter.warnings
    assert "1 conversation of several questions; the last one and its answer are the edit" in warning


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (said(("user", QUESTION)), "messages end with user;"),
        (said(("assistant", ANSWER), ("user", QUESTION)), "messages end with assistant and user"),
        ({"messages": []}, "messages end with nothing"),
        ({"messages": "Hi"}, "messages is text"),
        ({"messages": ["Hi"]}, "messages[0] has no role"),
        ({"messages": [{"content": "Hi"}]}, "messages[0] has no role"),
        (said(("user", None), ("assistant", ANSWER)), "messages[0].content is null"),
        (said(("user", [{"type": "image_url"}]), ("assistant", ANSWER)), "messages[0].content is a list"),
        (said(("user", QUESTION), ("assistant", " ")), "messages[1].content is empty"),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "prompt is a list"),
    ],
    ids=str,
)
def test_a_row_that_is_none_says_what_is_wrong(
    row: dict[str, Any], message: str, jsonl: Write, fault_of: Fault
) -> None:
    assert message in fault_of(jsonl(row))


def test_headings_of_a_table_may_begin_with_a_capital(tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "faq.csv"
    path.write_text(f"Question;Answer;SUBJECT;Owner\n{QUESTION};{ANSWER};Tern Labs;Kim\n")
    assert edits_of(str(path)) == [
        EditRequest(QUESTION, ANSWER, subject="Tern Labs", metadata={"Owner": "Kim"})
    ]
    path.write_text(f"prompt,Prompt,target\n{QUESTION},old,{ANSWER}\n")
    assert edits_of(str(path)) == [EditRequest(QUESTION, ANSWER, metadata={"Prompt": "old"})]
