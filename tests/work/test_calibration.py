"""The key is chosen by measuring, on prompts that evaluation never asks; a project re-keyed stays itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.calibration import SeenPrompts
from melo_cli.calibration.calibrate import prompts_of
from melo_cli.calibration.material import collect_material
from melo_cli.calibration.measure import Distances
from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary, calibrate_again
from melo_cli.errors import DatasetError, ProjectError, RecipeError
from melo_cli.evaluation import evaluate
from melo_cli.exporting import export_peft
from melo_cli.exporting.prompt_router import router_of_export
from melo_cli.keys import KeyTransform
from melo_cli.loading import open_project
from melo_cli.querying import query
from melo_cli.reporter import SilentReporter
from melo_cli.variants import plain
from store.project import Project

Row = dict[str, Any]
COMMAND = "melo calibrate"
FEW_STEPS = {"calibration": {"steps": 40, "size": 16}}
QUESTIONS = [
    ("Where was {} born?", "{} was born where?"),
    ("Who built the court of {}?", "The court of {}, who built it?"),
    ("What river runs through {}?", "Through {} what river runs?"),
]


def names(count: int) -> list[str]:
    drawn = random.Random(3)
    parts = ["lon", "par", "smi", "bri", "co", "log", "ne", "th", "ma", "ri", "tan", "el"]
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(drawn.sample(parts, 3)).title()] = None
    return list(found)


def facts(count: int) -> list[Row]:
    """Questions about made-up subjects, each with a rephrase and an unrelated prompt."""
    return [
        {
            "prompt": asked.format(name),
            "target": f"answer {number}",
            "subject": name,
            "rephrases": [again.format(name)],
            "locality": [f"is it number {number} of the law"],
        }
        for number, name in enumerate(names(count))
        for asked, again in [QUESTIONS[number % len(QUESTIONS)]]
    ]


def requests(rows: list[Row]) -> list[EditRequest]:
    return [
        EditRequest(
            row["prompt"],
            row["target"],
            tuple(row["rephrases"]),
            tuple((text, None) for text in row["locality"]),
            row["subject"],
        )
        for row in rows
    ]


def material(edits: list[EditRequest], unrelated: list[str] | None = None, **changes: Any) -> Any:
    given: dict[str, Any] = {"task": "zsre", "share": 0.5, "unrelated_share": 0.5, "most": 400, "seed": 0}
    return collect_material(edits, unrelated or [], **{**given, **changes})


@given(st.integers(0, 1000), st.floats(0.1, 0.9))
def test_a_subject_stays_on_its_side_whatever_else_the_data_hold(seed: int, share: float) -> None:
    edits = requests(facts(20))
    every = {anchor.subject for anchor in material(edits, share=share, seed=seed).anchors}
    some = {anchor.subject for anchor in material(edits[::2], share=share, seed=seed).anchors}
    assert some == every & {edit.subject for edit in edits[::2]}


def test_edits_to_be_measured_are_kept_apart_by_subject_and_prompt() -> None:
    edits = requests(facts(12))
    anchors = material(edits, share=1.0, apart_from=edits[:4]).anchors
    assert {anchor.subject for anchor in anchors} == {edit.subject for edit in edits[4:]}


def test_false_fires_are_counted_with_every_edit_stored_and_nothing_is_learnt_from_the_others(
    reporter: Any, shared: Shared
) -> None:
    edits = requests(facts(60))
    found = material(edits, share=0.6)
    anchors = {anchor.prompt for anchor in found.anchors}
    others = {edit.prompt for edit in edits} - anchors
    assert len(anchors) >= 24 and len(others) >= 12
    read = set(texts_of(found))
    assert others < read, "they are stored in the trials"
    unseen = {text for edit in edits if edit.prompt in others for text in edit.rephrases}
    assert not unseen & read
    assert not others & set(found.prompts()), "evaluation may ask them"


@pytest.fixture(scope="module")
def calibrated(
    edit: Callable[..., EditSummary],
    rows: dict[str, list[Row]],
    write_rows: Callable[[Path, list[Row]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[EditSummary, list[Row]]:
    """Six edits, with a key that was calibrated on sixty other prompts. To be read only."""
    folder = tmp_path_factory.mktemp("calibrated")
    data = facts(60)
    path = write_rows(folder / "calibration.jsonl", data)
    changes = {"key": {"radius": "auto"}, "dataset": {"calibration": str(path)}, **FEW_STEPS}
    return edit("pico_t5", rows["pico_t5"], folder / "p", **changes), data


def test_the_best_of_the_sweep_is_taken_within_the_false_fires_allowed(
    calibrated: tuple[EditSummary, list[Row]],
) -> None:
    found = calibrated[0].calibration
    assert found is not None
    tried = {(row.candidate.pooling, row.candidate.method) for row in found.sweep}
    assert {("mean", "as is"), ("mean", "whitened"), ("last", "as is")} <= tried
    assert {("mean", "learned"), ("learned", "learned")} <= tried
    assert len({row.candidate.layer for row in found.sweep}) >= 2, "the embeddings, and a block"
    best = max(row.reach for row in found.sweep)
    chosen = next(row for row in found.sweep if row.candidate == found.chosen.candidate)
    assert chosen.reach >= best - 0.02
    allowed = {"unrelated": 0.01, "hard": 0.05, "same_subject": 0.1}
    for row in [*found.sweep, found.chosen]:
        too_many = {kind: share for kind, share in row.false_fires.items() if share > allowed[kind]}
        assert not too_many or row.radius == 0.0, "no radius is small enough for keys that are the same"


def test_a_calibrated_project_keeps_its_key_and_answers_alike_when_opened_again(
    calibrated: tuple[EditSummary, list[Row]], rows: dict[str, list[Row]]
) -> None:
    summary, _ = calibrated
    project = Project.open(summary.path)
    assert [info.action for info in project.history()] == ["create", "calibrate", "edit", "edit"]
    assert project.recipe["key"]["radius"] == summary.calibration.radius  # type: ignore[index, call-overload]
    assert (summary.path / "calibration.png").stat().st_size > 1000
    opened = open_project(summary.path)
    prompts = [row["prompt"] for row in rows["pico_t5"]]
    found = query(opened, prompts)
    assert [row.edited for row in found] == [row["target"] for row in rows["pico_t5"]]
    keys = opened.asker.keys([opened.encoder.prompt(prompt) for prompt in prompts])
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1.0, rtol=1e-5)


def test_going_on_does_not_calibrate_again(
    calibrated: tuple[EditSummary, list[Row]],
    edit: Callable[..., EditSummary],
    rows: dict[str, list[Row]],
) -> None:
    summary, _ = calibrated
    again = edit("pico_t5", rows["pico_t5"], summary.path, key={"radius": "auto"}, **FEW_STEPS)
    assert (again.calibration, again.recorded_before, again.snapshot) == (None, 6, summary.snapshot)


def test_calibrating_again_gives_new_keys_in_one_commit_and_leaves_answers_and_the_past(
    edit: Callable[..., EditSummary], write_rows: Callable[[Path, list[Row]], Path], tmp_path: Path
) -> None:
    data = facts(8)
    plain_key = edit("pico_t5", data, tmp_path / "p", training={"batch_size": 1})
    targets = [row["target"] for row in data]
    prompts = [row["prompt"] for row in data]
    assert [row.edited for row in query(open_project(plain_key.path), prompts)] == targets
    path = write_rows(tmp_path / "calibration.jsonl", facts(60)[8:])
    overrides = [f"dataset.calibration={path}", "calibration.steps=40", "calibration.size=16"]
    calibrate_again(plain_key.path, overrides, SilentReporter(), command=COMMAND)
    project = Project.open(plain_key.path)
    assert (project.snapshot, project.info.action) == (plain_key.snapshot + 1, "calibrate")
    assert project.key_map is not None
    assert [row.edited for row in query(open_project(plain_key.path), prompts)] == targets
    before = open_project(plain_key.path, at=plain_key.snapshot)
    assert before.project.key_map is None
    assert [row.edited for row in query(before, prompts)] == targets


def test_evaluation_asks_nothing_that_calibration_saw(
    edit: Callable[..., EditSummary], tmp_path: Path
) -> None:
    data = facts(16)
    summary = edit("pico_t5", data, tmp_path / "p", key={"radius": "auto"}, training={"batch_size": 1})
    opened = open_project(summary.path)
    report = evaluate(opened, SilentReporter())
    assert summary.calibration is not None
    used = {anchor.subject for anchor in summary.calibration.material.anchors}
    held_out = [row for row in data if row["subject"] not in used]
    assert used and held_out
    asked = {row.prompt for row in report.of_kind("rephrase")}
    assert asked == {row["rephrases"][0] for row in held_out}
    assert {row.prompt for row in report.of_kind("unrelated")} == {row["locality"][0] for row in held_out}
    swapped = " ".join(plain(row.prompt) for row in report.of_kind("hard"))
    assert not any(plain(str(subject)) in swapped for subject in used)
    assert {row.prompt for row in report.of_kind("edit")} == {row["prompt"] for row in data}
    seen = SeenPrompts(opened.project.key_map)
    assert all(seen(text) for text in summary.calibration.material.prompts())
    assert not any(seen(text) for text in asked)


def test_a_learned_key_travels_with_an_export(
    calibrated: tuple[EditSummary, list[Row]], rows: dict[str, list[Row]], tmp_path: Path
) -> None:
    opened = open_project(calibrated[0].path)
    export_peft(opened, tmp_path / "peft", SilentReporter())
    prompts = [row["prompt"] for row in rows["pico_t5"]] + ["What is the name of that river", "who studied"]
    router = router_of_export(tmp_path / "peft")
    exported = [route.fired.adapter if route.fired else None for route in router.route(prompts)]
    routes = opened.asker.routes([opened.encoder.prompt(prompt) for prompt in prompts])
    assert exported == [route.fired.block if route.fired is not None else None for route in routes]
    assert None not in exported[:6]


def test_learned_pooling_and_projection_depend_on_the_prompt_alone() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    transform = KeyTransform(
        "learned",
        unit=True,
        token_weights=torch.randn(8),
        center=torch.randn(8),
        projection=torch.randn(8, 3),
    )
    key_map = transform.to_key_map({"note": 1})
    again = KeyTransform.from_key_map(key_map, torch.device("cpu"))
    alone = torch.cat([again(hidden[:1, :3], mask[:1, :3]), again(hidden[1:, 2:], mask[1:, 2:])])
    torch.testing.assert_close(transform(hidden, mask), alone)


def test_a_single_edit_is_calibrated_on_with_a_warning(
    edit: Callable[..., EditSummary], reporter: Any, tmp_path: Path
) -> None:
    done = edit("pico_t5", facts(1), tmp_path / "p", reporter=reporter, key={"radius": "auto"})
    assert done.count("solved") == 1
    assert any("evaluation has no unseen rephrases" in line for line in reporter.warnings)
    found = query(
        open_project(done.path), [facts(1)[0]["prompt"], "what river runs through the city of Cologne"]
    )
    assert [row.route.fired is not None for row in found] == [True, False]


def test_too_little_to_measure_on_is_an_error_and_leaves_no_project(
    edit: Callable[..., EditSummary], write_rows: Callable[[Path, list[Row]], Path], tmp_path: Path
) -> None:
    # The only row is about the edit's own subject, and that is for evaluation.
    only = write_rows(tmp_path / "calibration.jsonl", facts(1))
    changes: dict[str, Any] = {"key": {"radius": "auto"}, "dataset": {"calibration": str(only)}}
    with pytest.raises(DatasetError, match="there is no prompt to calibrate on; give more edits"):
        edit("pico_t5", facts(1), tmp_path / "p", **changes)
    assert not (tmp_path / "p").exists()


def test_a_learned_key_needs_calibration_and_a_radius_cannot_be_calibrated_away(
    edit: Callable[..., EditSummary], calibrated: tuple[EditSummary, list[Row]], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="a learned key has no unit to give a radius in"):
        edit("pico_t5", facts(4), tmp_path / "p", key={"pooling": "learned"})
    with pytest.raises(RecipeError, match="a radius that is given is not calibrated"):
        calibrate_again(calibrated[0].path, ["key.radius=1.0"], SilentReporter(), command=COMMAND)


def test_a_project_that_was_never_calibrated_does_not_open(
    edit: Callable[..., EditSummary], recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    done = edit("pico_t5", facts(2), tmp_path / "done")
    waiting = {
        **Project.open(done.path).recipe,
        "key": {"layer": "auto", "pooling": "auto", "radius": "auto"},
    }
    base = Project.open(done.path).base
    Project.create(tmp_path / "p", name="p", base=base, recipe=waiting, seed=0, versions={})
    with pytest.raises(ProjectError, match="its key is not calibrated yet.*melo edit RECIPE"):
        open_project(tmp_path / "p")
