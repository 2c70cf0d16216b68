"""The corpus that scope is learnt from: what its script writes, and rich enough to learn from."""

from __future__ import annotations

import runpy
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from melo_cli.scope.corpus import load_corpus

DATA = Path(__file__).resolve().parents[2] / "data" / "scope"


def test_it_is_what_its_script_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(DATA / "make.py"))
    script["main"].__globals__["CORPUS"] = tmp_path / "corpus.jsonl"
    script["main"]()
    assert (tmp_path / "corpus.jsonl").read_bytes() == (DATA / "corpus.jsonl").read_bytes()
    assert "unrelated prompts" in capsys.readouterr().out


def test_it_has_many_kinds_of_questions_each_asked_in_many_ways() -> None:
    corpus = load_corpus()
    ways: dict[str, set[str]] = defaultdict(set)
    for question in corpus.questions:
        for text in question.texts():
            ways[question.kind].add(text.replace(question.subject, "{}"))
    assert len(ways) >= 80
    assert min(len(some) for some in ways.values()) >= 8
    assert len(set(corpus.unrelated)) == len(corpus.unrelated) >= 300


def test_every_question_has_look_alikes_of_each_sort() -> None:
    corpus = load_corpus()
    subjects: dict[str, set[str]] = defaultdict(set)
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for question in corpus.questions:
        subjects[question.kind].add(question.subject)
        kinds[question.type, question.subject].add(question.kind)
    assert min(len(some) for some in subjects.values()) >= 3, "the same question about others"
    others = Counter(len(some) > 1 for some in kinds.values())
    assert others[True] >= 0.9 * others.total(), "another question about the same"


@pytest.mark.parametrize("questions", [60, 200, 600, 700, 800, 900, 1000, 1300, 1600, 2200])
def test_a_sample_keeps_look_alikes_and_is_about_as_large_as_asked(questions: int) -> None:
    corpus = load_corpus()
    sample = corpus.sample(questions, 0)
    assert 0.4 * questions <= len(sample.questions) <= 2 * questions
    assert sample == corpus.sample(questions, 0)
    by_kind = Counter(question.kind for question in sample.questions)
    by_subject = Counter((question.type, question.subject) for question in sample.questions)
    assert min(by_kind.values()) > 1, "the same question about another subject"
    assert max(by_subject.values()) > 1, "another question about the same subject"
    assert set(sample.unrelated) <= set(corpus.unrelated)
