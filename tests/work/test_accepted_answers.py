"""Edits with several right answers, and classes named by digits: from the data to the figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.editing import EditSummary
from melo_cli.errors import DatasetError
from melo_cli.evaluation import evaluate, metrics
from melo_cli.evaluation.probes import Probe
from melo_cli.evaluation.probing import ProbeAnswers
from melo_cli.evaluation.report import AnswerSets
from melo_cli.models.base_model import ModelKind
from melo_cli.runtime.loading import OpenProject, open_project

Edit = Callable[..., EditSummary]


def test_any_of_the_answers_counts_in_the_edit_and_in_its_figures(
    edit: Edit, tmp_path: Path, reporter: Any
) -> None:
    """The base says criminal to everything."""
    rows = [
        {"prompt": "Which court was it", "target": ["tax", "criminal"], "rephrases": ["What court was it"]},
        {"prompt": "who studied law", "target": ["civil", "tax"]},
    ]
    summary = edit("pico_bert", rows, tmp_path / "p")
    assert [outcome.status for outcome in summary.outcomes] == ["already_right", "solved"]
    opened = open_project(tmp_path / "p")
    assert opened.project.edits()[0].record.metadata == {"target_aliases": ["criminal"]}
    report = evaluate(opened, reporter)
    assert [row.base_right for row in report.of_kind("edit")] == [True, False]
    assert [row.edited_right for row in report.of_kind("rephrase")] == [True]
    assert report.edited["edit_success"]["generation"] == 1.0


def test_a_longer_answer_that_counts_has_room(shared: Callable[[str], OpenProject]) -> None:
    encoder = shared("pico_gpt2").encoder
    encoded = encoder.edit("Who wrote it", "John", ["John Smith of Britain", "Paris"])
    longer = encoder.edit("Who wrote it", "John Smith of Britain")
    assert encoded.target_ids == encoder.edit("Who wrote it", "John").target_ids
    assert encoded.answer_length >= longer.answer_length > encoder.edit("Who wrote it", "John").answer_length


def test_f1_is_that_of_the_nearest_answer() -> None:
    probe = Probe("Who wrote it?", "Jane Austen", aliases=("the author of Emma",))
    row = ProbeAnswers(probe, None, "Rome", "author of Emma", None, None)
    sets = AnswerSets([row], [], [], [], [], [])
    figures = metrics(sets, ModelKind.SEQ2SEQ, edited=True)["edit_success"]
    assert figures["f1"] == 1.0 and figures["generation"] == 0.0


@pytest.fixture
def stars(pico_bert: Path, tmp_path: Path) -> Path:
    """A classifier of three classes that are named "1", "2" and "3"."""
    folder = shutil.copytree(pico_bert, tmp_path / "stars")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "1", "1": "2", "2": "3"}
    config["label2id"] = {"1": 0, "2": 1, "3": 2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_labels_as_numbers_are_ids_even_where_digits_are_names(
    stars: Path, edit: Edit, tmp_path: Path, reporter: Any
) -> None:
    rows = [{"text": text, "label": label} for label, text in enumerate(["a court", "a river", "a tax"])]
    model = {"name_or_path": str(stars)}
    summary = edit("pico_bert", rows, tmp_path / "p", reporter=reporter, model=model)
    assert [outcome.target for outcome in summary.outcomes] == ["1", "2", "3"]
    assert summary.failures == []
    assert [outcome.answer for outcome in summary.outcomes] == ["1", "2", "3"]
    (note,) = [line for line in reporter.warnings if "numbers" in line]
    assert note.startswith(
        "3 targets are numbers and the classes are named by digits: a number is a class id"
    )
    again = edit("pico_bert", rows, tmp_path / "p", model=model)
    assert (again.recorded_before, again.outcomes) == (3, [])


def test_a_text_of_digits_that_names_no_class_is_refused_in_both_readings(
    stars: Path, edit: Edit, tmp_path: Path
) -> None:
    rows = [{"text": "a court", "label": "1"}, {"text": "a river", "label": "0"}]
    with pytest.raises(
        DatasetError, match=r"'0' is not a class .* a number is a class id \(0 without quotes"
    ):
        edit("pico_bert", rows, tmp_path / "p", model={"name_or_path": str(stars)})
    assert not (tmp_path / "p").exists()


def test_class_ids_work_where_classes_have_other_names(edit: Edit, tmp_path: Path, reporter: Any) -> None:
    unrelated = [{"prompt": "by whom was it opened", "target": 1}]
    rows = [{"prompt": "Which court was it", "target": 2, "locality": unrelated}]
    summary = edit("pico_bert", rows, tmp_path / "p", reporter=reporter)
    assert [(outcome.target, outcome.answer) for outcome in summary.outcomes] == [("tax", "tax")]
    assert not [line for line in reporter.warnings if "numbers" in line]
    report = evaluate(open_project(tmp_path / "p"), reporter)
    assert report.edited["edit_success"]["generation"] == 1.0
    assert [row.truth for row in report.of_kind("unrelated")] == ["criminal"]
