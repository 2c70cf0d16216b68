"""`melo eval`: the figures as a table, as JSON and as a plot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.commands.rendering.figures import figures_table
from melo_cli.terminal import plain_table

Melo = Callable[..., Any]


def rows(out: str) -> dict[str, list[str]]:
    """Cells by the label of their row, the sub-rows under `label/sub-label`; the legend is left out."""
    found, parent = {}, ""
    for line in out.partition("\nshares in %")[0].splitlines():
        label, *cells = [cell for cell in line.strip().split("  ") if cell]
        parent = parent if line.startswith("  ") else label
        found[f"{parent}/{label}" if line.startswith("  ") else label] = [cell.strip() for cell in cells]
    return found


def test_the_task_picks_the_project_and_the_table_has_every_figure(edited: Path, melo: Melo) -> None:
    run = melo("eval", "--task", "zsre")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "project facts (.melo/facts)"
    assert lines[1] == "task zsre, snapshot 2, protocol strict, 4 edits"
    table = rows(run.out)
    assert table["metric"] == ["n", "base", "edited"]
    assert table["edit success"][0] == "4"
    assert table["edit success"][2] == "100 (51.0-100)"
    assert table["edit success/teacher-forced"][1] == "100"
    assert table["edit success/F1"][1] == "100"
    assert table["generality"][0] == "1"
    assert table["locality (base)"][:2] == ["1", "-"]
    assert table["fired, edits"] == ["4", "-", "100 (51.0-100)"]
    assert max(len(line) for line in lines) <= 80


def test_json_is_the_report_and_nothing_else(edited: Path, melo: Melo) -> None:
    document = melo("eval", "--task", "zsre", "--json").json
    assert set(document) >= {"project", "task", "snapshot", "protocol", "edits", "base", "edited"}
    assert document["edited"]["edit_success"]["generation"] == 1.0
    assert document["base"]["fired_edits"] is None


def test_a_classifier_has_accuracies(edited: Path, melo: Melo) -> None:
    table = rows(melo("eval", "--task", "scotus").out)
    assert table["accuracy, edits"][2] == "100 (51.0-100)"
    assert "edit success" not in table
    assert not any("teacher-forced" in label or "F1" in label for label in table)


def test_an_older_snapshot(edited: Path, melo: Melo) -> None:
    assert melo("eval", "--task", "zsre", "--at", 1, "--json").json["edits"] == 2


def test_a_project_without_edits_or_of_another_task(edited: Path, melo: Melo) -> None:
    run = melo("eval", "--task", "zsre", "--at", 0)
    assert (run.code, run.error.partition(";")[0]) == (2, ".melo/facts: the project has no live edit")
    run = melo("eval", "--task", "hallucination")
    assert (run.code, run.error) == (
        2,
        "--task: no project has task hallucination; cases has task scotus, facts has task zsre",
    )


def test_two_projects_of_the_task(own_edited: Path, melo: Melo) -> None:
    shutil.copytree(own_edited / ".melo/facts", own_edited / ".melo/again")
    run = melo("eval", "--task", "zsre")
    assert run.code == 2
    assert ".melo/again" in run.error
    assert ".melo/facts" in run.error


def test_a_plot(edited: Path, tmp_path: Path, melo: Melo) -> None:
    pytest.importorskip("matplotlib")
    for ending, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        run = melo("eval", "--task", "zsre", "--plot", tmp_path / f"retention.{ending}")
        assert run.code == 0
        assert (tmp_path / f"retention.{ending}").read_bytes().startswith(magic)


def share(generation: float, **more: float | None) -> dict[str, Any]:
    return {"generation": generation, "teacher_forced": 0.5, "n": 12345, "ci95": [0.1, 0.9876], **more}


def test_three_models_and_large_counts_fit_80_columns() -> None:
    figures = {
        "edit_success": share(1.0, f1=0.123),
        "generality": share(0.99996, f1=0.123),
        "locality_truth": share(0.00001, f1=0.5),
        "locality_agreement": share(0.5),
        "fired_edits": 0.5,
        "fired_rephrases": None,
        "fired_unrelated": 0.0,
        "perplexity_edits": 1.0234567,
        "perplexity_unrelated": 123456.7,
        "arr": None,
    }
    text = plain_table(figures_table("zsre", {"base": figures, "routed": figures, "merged": figures}))
    assert max(len(line) for line in text.splitlines()) <= 80
    table = rows(text)
    # 100 and 0 stand for all and none alone.
    assert table["edit success"][1].startswith("100 (")
    assert table["generality"][1].startswith("99.9 (")
    assert table["locality (truth)"][1].startswith("0.1 (")
    assert "fired, rephr." not in table
    assert table["fired, unrel."][1].startswith("0 (0-")
    assert table["perpl., edits"] == ["1.023"] * 3
    assert table["perpl., unrel."] == ["123,457"] * 3
    assert "ARR (perplexity)" not in table
    assert "edit success/F1" in table
    assert "edit success/F1" not in rows(plain_table(figures_table("custom", {"base": figures})))
