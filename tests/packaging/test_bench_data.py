"""What a bench asks beside the public sets: `data/bench/` is whole and well-formed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from melo_cli.bench.own_data import choice_questions, held_out_text, small_talk, translations

QUICKSTART = Path(__file__).resolve().parents[2] / "data" / "quickstart" / "edits.jsonl"
EDITS = [json.loads(line) for line in QUICKSTART.read_text(encoding="utf-8").splitlines()]


def test_the_held_out_text_is_prose_in_paragraphs_of_their_own() -> None:
    paragraphs = held_out_text()
    assert len(set(paragraphs)) == 30
    assert 1100 <= sum(len(each.split()) for each in paragraphs) <= 1300
    assert [each for each in paragraphs if not 25 <= len(each.split()) <= 60] == []
    assert [each for each in paragraphs if each != each.strip() or not each.endswith(".")] == []


def test_every_question_has_four_different_choices_of_similar_length() -> None:
    questions = choice_questions()
    assert len({each.question for each in questions}) == 60
    assert [each for each in questions if len({choice.lower() for choice in each.choices}) != 4] == []
    assert [each for each in questions if any(choice != choice.strip() for choice in each.choices)] == []
    words = [[len(choice.split()) for choice in each.choices] for each in questions]
    assert [each for each in words if max(each) - min(each) > 1] == []


def test_the_right_choice_stands_at_each_place_equally_often() -> None:
    assert Counter(each.answer for each in choice_questions()) == {0: 15, 1: 15, 2: 15, 3: 15}


def test_small_talk_goes_to_and_fro_between_user_and_assistant() -> None:
    turns = small_talk()
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 5
    assert all(set(turn) == {"role", "content"} and turn["content"].strip() for turn in turns)


def test_every_question_of_the_quickstart_is_asked_in_each_language_about_its_subject() -> None:
    asked = translations()
    assert Counter((each.prompt, each.language) for each in asked) == Counter(
        (edit["prompt"], language) for edit in EDITS for language in ("de", "fr", "es")
    )
    assert len({each.question for each in asked}) == len(asked)
    assert [each for each in asked if not each.question.endswith("?") or each.question == each.prompt] == []


@pytest.mark.parametrize("target", [edit["target"] for edit in EDITS if not edit["target"].isdecimal()])
def test_nothing_gives_away_an_answer_or_speaks_of_what_is_edited(target: str) -> None:
    texts = [
        *held_out_text(),
        *(turn["content"] for turn in small_talk()),
        *(text for each in choice_questions() for text in (each.question, *each.choices)),
    ]
    subjects = {edit["subject"] for edit in EDITS}
    assert [text for text in texts if target in text or any(name in text for name in subjects)] == []
    assert [each for each in translations() if target in each.question] == []
