"""`melo eval`: the figures as a table, as JSON and as a plot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from melo_cli.ui.metrics import figures_table
from melo_cli.ui.plain_renderer import plain_table
from melo_store.format.layout import EVALUATION

Melo = Callable[..., Any]


def rows(out: str) -> dict[str, list[str]]:
    """Cells by the label of their row, the sub-rows under `label/sub-label`; the legend is left out."""
    cells_by_label, parent = {}, ""
    for line in out.partition("\nshares in %")[0].splitlines():
        label, *cells = [cell for cell in line.strip().split("  ") if cell]
        parent = parent if line.startswith("  ") else label
        cells_by_label[f"{parent}/{label}" if line.startswith("  ") else label] = [
            cell.strip() for cell in cells
        ]
    return cells_by_label


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


def test_the_project_keeps_the_figures_of_its_newest_snapshot(own_edited: Path, melo: Melo) -> None:
    store = own_edited / ".melo" / "facts"
    (store / EVALUATION).unlink(missing_ok=True)
    assert "evaluated" not in melo("status", "--project", "facts").out
    melo("eval", "--task", "zsre", "--at", 1)
    assert melo("status", "--project", "facts", "--json").json["evaluation"] is None
    measured = melo("eval", "--task", "zsre", "--json").json
    kept = melo("status", "--project", "facts", "--json").json["evaluation"]
    assert kept.pop("evaluated_at").startswith("20")
    assert kept == measured
    said = next(line for line in melo("status", "--project", "facts").out.splitlines() if "evaluated" in line)
    assert "snapshot 2, strict: edit success 1.000" in said
    assert melo("verify", "--project", "facts").code == 0
    assert melo("gc", "--project", "facts").code == 0
    assert melo("status", "--project", "facts", "--json").json["evaluation"].items() >= kept.items()
    (store / EVALUATION).write_text("[]", encoding="utf-8")
    run = melo("status", "--project", "facts")
    assert run.code != 0 and "run `melo eval` again" in run.error


def test_figures_that_cannot_be_kept_are_shown_all_the_same(own_edited: Path, melo: Melo) -> None:
    store = own_edited / ".melo" / "facts"
    (store / EVALUATION).unlink(missing_ok=True)
    (store / f"{EVALUATION}.tmp").mkdir()
    run = melo("eval", "--task", "zsre")
    assert run.code == 0 and "edit success" in run.out
    assert "the figures are not kept in the project" in run.err


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
    for ending, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        run = melo("eval", "--task", "zsre", "--plot", tmp_path / f"retention.{ending}")
        assert run.code == 0
        assert (tmp_path / f"retention.{ending}").read_bytes().startswith(magic)


# Protocols, files and baselines


def test_the_table_says_how_to_read_it_in_80_columns(edited: Path, melo: Melo) -> None:
    out = melo("eval", "--task", "zsre").out
    assert "generality     their rephrases answered as asked" in out
    assert "nearest right  rephrases nearest to the right edit: the ceiling of the keys" in out
    assert "strict: after all edits, every prompt asked alone" in out
    assert "perpl." not in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_paper_protocol(edited: Path, melo: Melo) -> None:
    run = melo("eval", "--task", "zsre", "--protocol", "paper")
    assert run.code == 0
    lines = [line.split() for line in run.out.splitlines()]
    assert ["F1,", "%", "base", "edited"] in lines
    assert ["edit", "success", "0", "100"] in lines
    assert "paper: as published (arXiv 2312.11795, Sec. 4): F1 of words" in run.out
    assert max(len(line) for line in run.out.splitlines()) <= 80
    document = melo("eval", "--task", "zsre", "--protocol", "paper", "--json").json
    assert (document["protocol"], document["edited"]["published"]["measure"]) == ("paper", "F1")
    assert document["measures"].startswith("as published")
    assert melo("eval", "--task", "zsre", "--protocol", "loose").code == 2


def test_results_and_report_are_written(edited: Path, tmp_path: Path, melo: Melo) -> None:
    page, table = tmp_path / "r.html", tmp_path / "r.parquet"
    run = melo("eval", "--task", "zsre", "--report", page, "--results", table, "--json")
    assert (run.code, run.json["edits"]) == (0, 4)
    assert f"wrote {page}" in run.err
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    probes = pq.read_table(table).to_pylist()
    assert (probes[0]["kind"], probes[0]["prompt"]) == ("edit", "Who is the prime minister of Britain?")
    assert {probe["kind"] for probe in probes} == {"edit", "rephrase", "hard", "unrelated"}


def test_baselines_stand_beside_ours(edited: Path, melo: Melo) -> None:
    names = "base,finetune,lora,grace,alphaedit"
    few = ("finetune.epochs=2", "lora.epochs=2", "grace.steps=2", "alphaedit.steps=2", "alphaedit.texts=20")
    fast = [f"--baseline-set={setting}" for setting in few]
    run = melo("eval", "--task", "scotus", "--baseline", names, *fast)
    assert run.code == 0
    table = rows(run.out)
    assert table["metric"] == ["n", "base", "edited", "finetune", "lora", "grace", "alphaedit"]
    assert len(table["accuracy, edits"]) == 7
    assert "shares in %, by greedy generation and exact match; --json has intervals" in run.out
    assert "finetune" in run.out.partition("seconds")[2]
    assert max(len(line) for line in run.out.splitlines()) <= 80


@pytest.mark.parametrize("option", ["--plot", "--report", "--results"])
def test_a_file_that_cannot_be_written_fails_before_the_work(
    option: str, edited: Path, tmp_path: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / {"--plot": "a.png", "--report": "a.html", "--results": "a.parquet"}[option]
    path.mkdir()
    never_evaluated(monkeypatch)
    run = melo("eval", "--task", "zsre", option, path)
    assert (run.code, run.out, run.error) == (
        2,
        "",
        f"{option} {path}: the file cannot be written (Is a directory)",
    )


def test_a_wrong_baseline_fails_before_the_work(
    edited: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_evaluated(monkeypatch)
    run = melo("eval", "--task", "zsre", "--baseline", "grcae")
    assert (run.code, run.error) == (2, "--baseline: 'grcae' is not a baseline; did you mean grace?")


def never_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: object, **__: object) -> None:
        pytest.fail("the evaluation ran")

    monkeypatch.setattr("melo_cli.evaluation.evaluate", evaluate)


def test_a_file_that_is_there_is_kept_until_it_is_written_anew(
    edited: Path, tmp_path: Path, melo: Melo
) -> None:
    (tmp_path / "a.html").write_text("old")
    assert melo("eval", "--task", "hallucination", "--report", tmp_path / "a.html").code == 2
    assert (tmp_path / "a.html").read_text() == "old"


def share(generation: float, **more: float | None) -> dict[str, Any]:
    return {"generation": generation, "teacher_forced": 0.5, "n": 12345, "ci95": [0.1, 0.9876], **more}


def test_three_models_and_large_counts_fit_80_columns() -> None:
    figures = {
        "edit_success": share(1.0, f1=0.123),
        "generality": share(0.99996, f1=0.123),
        "locality_truth": share(0.00001, f1=0.5),
        "locality_agreement": share(0.5),
        "hard_agreement": share(0.5),
        "fired_edits": 0.5,
        "fired_rephrases": None,
        "fired_unrelated": 0.0,
        "fired_hard": 0.25,
        "nearest_right": 1.0,
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
    assert table["fired, hard"][1].startswith("25.0 (")
    assert table["nearest right"][1].startswith("100 (")
    five = dict.fromkeys(("base", "edited", "finetune", "lora", "grace"), figures)
    wide = plain_table(figures_table("zsre", five))
    assert max(len(line) for line in wide.splitlines()) <= 80
    assert rows(wide)["edit success"] == ["12345", *["100"] * 5]
    assert "edit success/F1" not in rows(plain_table(figures_table("custom", {"base": figures})))


def test_a_sample_asks_of_some_edits_and_says_so(edited: Path, tmp_path: Path, melo: Melo) -> None:
    whole = melo("eval", "--task", "zsre", "--json").json
    run = melo("eval", "--task", "zsre", "--sample", 2, "--json", "--results", tmp_path / "some.parquet")
    assert (run.json["edits"], run.json["sampled_from"], whole["sampled_from"]) == (2, 4, None)
    assert run.json["edited"]["edit_success"]["n"] == 2
    low, high = run.json["edited"]["edit_success"]["ci95"]
    assert low < whole["edited"]["edit_success"]["ci95"][0] and high == 1.0
    rows = pq.read_table(tmp_path / "some.parquet").to_pylist()
    asked = {row["edit_id"] for row in rows if row["kind"] == "edit"}
    assert len(asked) == 2 and {row["edit_id"] for row in rows} <= asked | {None}
    again = melo("eval", "--task", "zsre", "--sample", 2, "--json").json
    assert again | {"seconds": 0} == run.json | {"seconds": 0}, "the seed draws the sample"
    assert "2 of 4 edits" in melo("eval", "--task", "zsre", "--sample", 2).out
    assert melo("eval", "--task", "zsre", "--sample", 9, "--json").json["edits"] == 4
    run = melo("eval", "--task", "zsre", "--sample", 2, "--baseline", "base")
    assert (run.code, "melo all edits" in run.error) == (2, True)
