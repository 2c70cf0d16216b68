"""What edits answer for is learnt from a corpus and the project's data, and how sure the router has to be."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pico_scope import QUICK_SCOPE
from safetensors.torch import load_file, save_file

from melo_cli.calibration import SeenPrompts, scope_cache
from melo_cli.calibration.calibration_data import collect_calibration_data
from melo_cli.calibration.project_examples import episode_of, other_questions, texts_of
from melo_cli.calibration.thresholds import ASKING, Evidence, shares, threshold_within
from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary, calibrate_again
from melo_cli.errors import BaseMismatchError, ProjectError, RecipeError
from melo_cli.evaluation import evaluate
from melo_cli.exporting import export_peft
from melo_cli.paraphrase.subject_swaps import normalized
from melo_cli.recipe.schema import FalseFireSection
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, open_project, stored_recipe
from melo_cli.runtime.querying import query
from melo_cli.scope.core.exported import open_router
from melo_cli.scope.core.rules import Verified
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.simulation import Outcome
from melo_store.project import Project

Row = dict[str, Any]
Edit = Callable[..., EditSummary]
Rows = dict[str, list[Row]]
COMMAND = "melo calibrate"
READING = "learning scope: reading the corpus"
STRICTEST = (
    "no threshold keeps false fires within routing.max_false_fire, so each edit answers its own prompt alone"
)
BOUNDS = FalseFireSection().model_dump()
QUESTIONS = [
    ("Where was {} born?", "{} was born where?"),
    ("Who built the court of {}?", "The court of {}, who built it?"),
    ("What river runs through {}?", "Through {} what river runs?"),
]


def names(count: int) -> list[str]:
    drawn = random.Random(3)
    parts = ["lon", "par", "smi", "bri", "co", "log", "ne", "th", "ma", "ri", "tan", "el"]
    drawn_names: dict[str, None] = {}
    while len(drawn_names) < count:
        drawn_names["".join(drawn.sample(parts, 3)).title()] = None
    return list(drawn_names)


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


def calibration_data(edits: list[EditRequest], unrelated: list[str] | None = None, **changes: Any) -> Any:
    given: dict[str, Any] = {"task": "zsre", "share": 0.5, "unrelated_share": 0.5, "most": 400, "seed": 0}
    return collect_calibration_data(edits, unrelated or [], **{**given, **changes})


@given(st.integers(0, 1000), st.floats(0.1, 0.9))
def test_a_subject_stays_on_its_side_whatever_else_the_data_hold(seed: int, share: float) -> None:
    edits = requests(facts(20))
    every = {
        calibration_edit.subject
        for calibration_edit in calibration_data(edits, share=share, seed=seed).calibration_edits
    }
    some = {
        calibration_edit.subject
        for calibration_edit in calibration_data(edits[::2], share=share, seed=seed).calibration_edits
    }
    assert some == every & {edit.subject for edit in edits[::2]}


def test_edits_to_be_measured_are_held_out_by_subject_and_prompt() -> None:
    edits = requests(facts(12))
    calibration_edits = calibration_data(edits, share=1.0, excluded=edits[:4]).calibration_edits
    assert {calibration_edit.subject for calibration_edit in calibration_edits} == {
        edit.subject for edit in edits[4:]
    }


def test_false_fires_are_counted_with_every_edit_stored_and_nothing_is_learnt_from_the_others() -> None:
    edits = requests(facts(60))
    data = calibration_data(edits, share=0.6)
    calibration_edits = {calibration_edit.prompt for calibration_edit in data.calibration_edits}
    others = {edit.prompt for edit in edits} - calibration_edits
    assert len(calibration_edits) >= 24 and len(others) >= 12
    made = other_questions(data.calibration_edits, torch.eye(len(data.calibration_edits)), seed=0)
    read = set(texts_of(data, made))
    assert others < read, "they are stored in the trials"
    unseen = {text for edit in edits if edit.prompt in others for text in edit.rephrases}
    assert not unseen & read
    assert not others & set(data.prompts()), "evaluation may ask them"


def test_other_questions_about_a_subject_are_those_that_other_edits_ask() -> None:
    edits = requests(facts(40))
    data = calibration_data(edits, share=1.0)
    made = other_questions(data.calibration_edits, torch.eye(len(data.calibration_edits)), seed=0)
    subjects = {edit.prompt: str(edit.subject) for edit in edits}
    own = {edit.prompt: {edit.prompt, *edit.rephrases} for edit in edits}
    assert sum(map(len, made.values())) >= len(edits)
    for prompt, texts in made.items():
        assert all(subjects[prompt] in text for text in texts)
        assert not own[prompt] & set(texts), "the edit's own question is no other one"


def test_no_other_question_is_taken_from_edits_that_ask_the_same_in_other_words() -> None:
    """Two frames ask the same: about a subject of the first the second is no negative."""
    asked = [
        ("The headquarters of {} are in", "where {} is based"),
        ("{} is based in", "the home of {}"),
        ("Who founded {}?", "the founder of {}"),
        ("How many work at {}?", "the staff of {}"),
        ("What does {} make?", "the products of {}"),
        ("Who owns {}?", "the owner of {}"),
    ]
    edits = [
        EditRequest(prompt.format(name), "there", (again.format(name),), (), name)
        for number, name in enumerate(names(48))
        for prompt, again in [asked[number % 6]]
    ]
    calibration_edits = calibration_data(edits, share=1.0).calibration_edits
    kinds = [
        next(at for at, (text, _) in enumerate(asked) if text.format(each.subject) == each.prompt)
        for each in calibration_edits
    ]
    vectors = torch.eye(6)
    vectors[1] = torch.nn.functional.normalize(vectors[0] + 0.1 * vectors[1], dim=0)
    made = other_questions(calibration_edits, vectors[kinds], seed=0)
    heads = [
        text
        for each, at in zip(calibration_edits, kinds, strict=True)
        if at == 0
        for text in made[each.prompt]
    ]
    assert len(heads) >= 8
    assert not any(text.startswith("the home of") for text in heads)


@pytest.mark.parametrize("linked", [True, False])
def test_words_that_an_edit_has_as_rephrases_of_each_other_ask_the_same(linked: bool) -> None:
    """One edit asks for headquarters in the words of the second question, behind another sentence; the keys
    know nothing of it."""
    asked = [
        ("The headquarters of {} are in", "where {} is found"),
        ("{} sits in", "the home of {}"),
        ("Who founded {}?", "the founder of {}"),
        ("How many work at {}?", "the staff of {}"),
        ("What does {} make?", "the products of {}"),
    ]
    kinds = [number % 5 for number in range(50)]
    edits = [
        EditRequest(prompt.format(name), "there", (again.format(name),), (), name)
        for name, (prompt, again) in zip(names(50), (asked[kind] for kind in kinds), strict=True)
    ]
    if linked:
        both = f"It rained all day. {edits[0].subject} sits in"
        edits[0] = dataclasses.replace(edits[0], rephrases=(both,))
    calibration_edits = calibration_data(edits, share=1.0).calibration_edits
    order = {edit.prompt: kind for edit, kind in zip(edits, kinds, strict=True)}
    vectors = torch.eye(5)[[order[each.prompt] for each in calibration_edits]]
    made = other_questions(calibration_edits, vectors, seed=0)
    texts = [text for each in calibration_edits if order[each.prompt] == 0 for text in made[each.prompt]]
    assert len(texts) >= 10
    assert any(text.startswith("the home of") for text in texts) is not linked


@pytest.mark.parametrize(
    ("locality", "kind"),
    [
        ("Who designed the Tower of Riga?", "same_subject"),
        ("When was the Tower of Minsk opened?", "hard"),
        ("When did it rain last?", "unrelated"),
    ],
)
def test_an_edits_locality_prompts_are_measured_as_what_they_ask(locality: str, kind: str) -> None:
    row = EditRequest(
        "When was the Tower of Riga opened?", "1901", (), ((locality, None),), "the Tower of Riga"
    )
    data = calibration_data([row], share=1.0)
    [calibration_edit] = data.calibration_edits
    kinds = {
        "same_subject": calibration_edit.same_subject,
        "hard": calibration_edit.hard,
        "unrelated": data.unrelated,
    }
    assert {name for name, texts in kinds.items() if texts} == {kind}
    episode = episode_of(data.calibration_edits, (), data, data.unrelated, {})
    assert [(asked.kind, asked.text) for asked in episode.asked if asked.text == locality] == [
        (kind, locality)
    ]


# How sure the router has to be

LOGITS = st.floats(-20, 20) | st.sampled_from([-1.0, 0.0, 1.0])
# Infinite is what an edit's own prompt has, which is no negative.
OUTCOMES = st.lists(
    st.builds(Outcome, st.sampled_from(ASKING), st.just("text"), LOGITS | st.just(math.inf), st.booleans())
    | st.builds(Outcome, st.sampled_from(tuple(BOUNDS)), st.just("text"), LOGITS, st.booleans()),
    max_size=150,
)
SHARES = st.fixed_dictionaries({kind: st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.5, 1.0]) for kind in BOUNDS})


@given(OUTCOMES, OUTCOMES, SHARES)
def test_no_kind_fires_more_than_it_may_by_either_evidence(
    corpus: list[Outcome], own: list[Outcome], bounds: dict[str, float]
) -> None:
    threshold = threshold_within(Evidence(corpus, own), bounds)
    for kind, bound in bounds.items():
        assert shares(own, threshold).get(kind, 0.0) <= bound + 1e-9
        if sum(outcome.kind == kind for outcome in own) < 50:  # else the project's own say more
            assert shares(corpus, threshold).get(kind, 0.0) <= bound + 1e-9


@given(OUTCOMES, SHARES)
def test_a_threshold_stands_clear_of_every_query_that_was_measured(
    corpus: list[Outcome], bounds: dict[str, float]
) -> None:
    threshold = threshold_within(Evidence(corpus), bounds)
    if math.isinf(threshold):
        return
    finite = [one.logit for one in corpus if math.isfinite(one.logit)]
    near = min((abs(logit - threshold) for logit in finite), default=1.0)
    # What was counted as firing fires, and what was not does not, though the numbers round a little apart.
    adapted = [dataclasses.replace(one, logit=one.logit + near * 0.4) for one in corpus]
    assert shares(adapted, threshold) == shares(corpus, threshold)
    assert any(one.kind in ASKING and one.right and one.logit >= threshold for one in corpus)


@given(OUTCOMES)
def test_where_nothing_that_asks_for_an_edit_is_reached_only_its_own_prompt_fires(
    outcomes: list[Outcome],
) -> None:
    unreached = [dataclasses.replace(one, right=False) for one in outcomes]
    assert threshold_within(Evidence(unreached), BOUNDS) == math.inf


def measured(kind: str, *logits: float, right: bool = False) -> list[Outcome]:
    return [Outcome(kind, "text", logit, right) for logit in logits]


def test_the_least_threshold_within_the_bounds_is_taken() -> None:
    rephrases = measured("rephrase", 4.0, 2.0, 0.5, right=True)
    hard = measured("hard", *([1.0] * 5), *([-3.0] * 95))
    assert threshold_within(Evidence([*rephrases, *hard]), BOUNDS) == (-3.0 + 0.5) / 2
    stricter = threshold_within(Evidence([*rephrases, *hard]), {**BOUNDS, "hard": 0.04})
    assert stricter == (1.0 + 2.0) / 2
    # Many negatives of the project's own count in place of the corpus's.
    own = measured("hard", *([3.0] * 60))
    assert threshold_within(Evidence([*rephrases, *hard], own), BOUNDS) == (3.0 + 4.0) / 2


# Projects


@pytest.fixture(scope="module")
def calibrated(
    edit: Edit,
    rows: Rows,
    verified: dict[str, Any],
    write_rows: Callable[[Path, list[Row]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[EditSummary, list[Row]]:
    """Six edits, calibrated on sixty other prompts. To be read only."""
    folder = tmp_path_factory.mktemp("calibrated")
    data = facts(60)
    path = write_rows(folder / "calibration.jsonl", data)
    changes = {"dataset": {"calibration": str(path)}, **verified}
    return edit("pico_t5", rows["pico_t5"], folder / "p", **changes), data


def test_a_projects_own_rephrases_move_what_was_learnt_and_are_measured(
    calibrated: tuple[EditSummary, list[Row]],
) -> None:
    calibration = calibrated[0].calibration
    assert calibration is not None and calibration.adapted
    assert calibration.counts["rephrase"] == 60
    for kind, bound in BOUNDS.items():
        assert calibration.own.get(kind, 0.0) <= bound
        assert calibration.corpus[kind] <= bound or calibration.counts.get(kind, 0) >= 50
    assert calibration.own["rephrase"] > 0.5, "a rephrase has all words of its prompt"


def test_a_calibrated_project_keeps_its_scope_and_answers_alike_when_opened_again(
    calibrated: tuple[EditSummary, list[Row]], rows: Rows
) -> None:
    summary, _ = calibrated
    project = Project.open(summary.path)
    assert [info.action for info in project.history()] == ["create", "calibrate", "edit", "edit"]
    assert project.key_map is not None and summary.calibration is not None
    assert project.key_map.settings["threshold"] == summary.calibration.threshold
    prompts = [row["prompt"] for row in rows["pico_t5"]]
    results = query(open_project(summary.path), [*prompts, "the law of London"])
    assert [row.edited for row in results[:-1]] == [row["target"] for row in rows["pico_t5"]]
    assert [row.route.fired.probability for row in results[:-1] if row.route.fired] == [1.0] * 6
    assert results[-1].route.fired is None
    assert results[-1].edited == results[-1].base


def test_going_on_does_not_calibrate_again(
    calibrated: tuple[EditSummary, list[Row]], edit: Edit, rows: Rows, verified: dict[str, Any]
) -> None:
    summary, _ = calibrated
    again = edit("pico_t5", rows["pico_t5"], summary.path, **verified)
    assert (again.calibration, again.recorded_before, again.snapshot) == (None, 6, summary.snapshot)


def test_a_project_by_radius_is_verified_after_one_commit_that_leaves_answers_and_the_past(
    edit: Edit, write_rows: Callable[[Path, list[Row]], Path], tmp_path: Path
) -> None:
    data = facts(8)
    by_radius = edit("pico_t5", data, tmp_path / "p", training={"batch_size": 1})
    targets = [row["target"] for row in data]
    prompts = [row["prompt"] for row in data]
    assert [row.edited for row in query(open_project(by_radius.path), prompts)] == targets
    path = write_rows(tmp_path / "calibration.jsonl", facts(60)[8:])
    overrides = [f"dataset.calibration={path}"]
    calibrate_again(by_radius.path, overrides, SilentReporter(), command=COMMAND)
    project = Project.open(by_radius.path)
    assert (project.snapshot, project.info.action) == (by_radius.snapshot + 1, "calibrate")
    assert project.recipe["routing"]["scope"] == "verified"  # type: ignore[index, call-overload]
    assert project.clusters() == []
    assert [row.edited for row in query(open_project(by_radius.path), prompts)] == targets
    before = open_project(by_radius.path, at=by_radius.snapshot)
    assert before.project.key_map is None
    assert [row.edited for row in query(before, prompts)] == targets


def test_an_older_edit_without_a_subject_is_found_by_the_name_in_its_prompt_from_then_on(
    edit: Edit, verified: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = {"prompt": "Who zigzags through Loch Ness?", "target": "London"}
    changes = verified | {"calibration": QUICK_SCOPE}
    with monkeypatch.context() as older:
        older.setattr("melo_cli.editing.run.guessed_subject", lambda prompt: None)
        path = edit("pico_gpt2", [row], tmp_path / "older", **changes).path
    named = edit("pico_gpt2", [row | {"subject": "Loch Ness"}], tmp_path / "named", **changes).path
    wanted = Project.open(named).tokens(["e000001"])[0]
    assert not np.array_equal(Project.open(path).tokens(["e000001"])[0], wanted)
    calibrate_again(path, [], SilentReporter(), command=COMMAND)
    assert np.array_equal(Project.open(path).tokens(["e000001"])[0], wanted)


def test_the_recipe_of_a_project_of_format_2_is_read(shared: Callable[..., OpenProject]) -> None:
    stored = {
        **shared("pico_gpt2").project.recipe,
        "key": {"layer": "transformer.wte", "pooling": "learned", "radius": 0.25},
        "calibration": {"share": 0.5, "max_edits": 400, "size": 128, "steps": 400},
    }
    del stored["routing"]
    project = SimpleNamespace(path=Path("p"), recipe=stored)
    recipe = stored_recipe(project)  # type: ignore[arg-type]
    assert (recipe.routing.scope, recipe.key.pooling, recipe.key.radius) == ("radius", "learned", 0.25)
    assert (recipe.calibration.share, recipe.calibration.max_edits) == (0.5, 400)


def test_evaluation_asks_nothing_that_calibration_saw(
    edit: Edit, verified: dict[str, Any], tmp_path: Path
) -> None:
    data = facts(16)
    summary = edit("pico_t5", data, tmp_path / "p", training={"batch_size": 1}, **verified)
    opened = open_project(summary.path)
    report = evaluate(opened, SilentReporter())
    assert summary.calibration is not None
    used = {
        calibration_edit.subject
        for calibration_edit in summary.calibration.calibration_data.calibration_edits
    }
    held_out = [row for row in data if row["subject"] not in used]
    assert used and held_out
    asked = {row.prompt for row in report.of_kind("rephrase")}
    assert asked == {row["rephrases"][0] for row in held_out}
    assert {row.prompt for row in report.of_kind("unrelated")} == {row["locality"][0] for row in held_out}
    swapped = " ".join(normalized(row.prompt) for row in report.of_kind("hard"))
    assert not any(normalized(str(subject)) in swapped for subject in used)
    assert {row.prompt for row in report.of_kind("edit")} == {row["prompt"] for row in data}
    seen = SeenPrompts(opened.project.key_map)
    assert all(seen(text) for text in summary.calibration.calibration_data.prompts())
    assert not any(seen(text) for text in asked)


def test_a_single_edit_without_rephrases_has_a_scope_that_holds(
    edit: Edit, reporter: Any, verified: dict[str, Any], tmp_path: Path
) -> None:
    [row] = facts(1)
    done = edit("pico_t5", [{"prompt": row["prompt"], "target": "London"}], tmp_path / "p", **verified)
    assert done.count("solved") == 1
    assert done.calibration is not None and not done.calibration.adapted
    other = row["prompt"].replace(row["subject"], "Cologne")
    results = query(open_project(done.path), [row["prompt"], other, "what river runs through it"])
    assert [row.route.fired is not None for row in results] == [True, False, False]


def test_a_project_that_was_never_calibrated_does_not_open(
    edit: Edit, verified: dict[str, Any], tmp_path: Path
) -> None:
    done = edit("pico_t5", facts(2), tmp_path / "done")
    waiting = {**Project.open(done.path).recipe, **verified, "routing": {"scope": "verified"}}
    base = Project.open(done.path).base
    Project.create(tmp_path / "p", name="p", base=base, recipe=waiting, seed=0, versions={})
    with pytest.raises(ProjectError, match="its scope is not learnt yet.*melo edit RECIPE"):
        open_project(tmp_path / "p")


def test_where_no_threshold_is_within_the_bounds_an_edit_answers_its_own_prompt_alone(
    edit: Edit, verified: dict[str, Any], reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from melo_cli.calibration import run

    learn = run.scope_learnt_with

    def hopeless(*given: Any) -> Any:
        outcomes = [*measured("rephrase", 0.0, right=True), *measured("unrelated", *([9.0] * 50))]
        return dataclasses.replace(learn(*given), outcomes=outcomes)

    monkeypatch.setattr(run, "scope_learnt_with", hopeless)
    prompt = "Who is the prime minister of Britain?"
    row = {"prompt": prompt, "target": "London"}
    done = edit("pico_gpt2", [row], tmp_path / "p", reporter=reporter, **verified)
    assert reporter.warnings == [STRICTEST]
    assert (done.count("solved"), done.calibration is not None and done.calibration.strictest) == (1, True)
    asked = [prompt, f"  {prompt.lower()}\n", "Tell me, who is the prime minister of Britain?"]
    results = query(open_project(tmp_path / "p"), asked)
    assert [row.route.fired is not None for row in results] == [True, True, False]


def test_a_key_that_is_the_same_for_every_prompt_is_refused(edit: Edit, rows: Rows, tmp_path: Path) -> None:
    # The first token of every text is [CLS], and the embeddings know nothing else of it.
    with pytest.raises(
        RecipeError, match="with pooling first is the same for every prompt; name a higher layer"
    ):
        edit("pico_bert", rows["pico_bert"], tmp_path / "p", key={"pooling": "first"})


def test_calibration_may_draw_unrelated_prompts_and_no_edit(
    edit: Edit, verified: dict[str, Any], tmp_path: Path
) -> None:
    """The share of one edit's subjects is often none."""
    locality = tmp_path / "locality.jsonl"
    rows = [{"prompt": f"is it number {n} of the law", "target": "no"} for n in range(20)]
    locality.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    row = {**facts(1)[0], "target": "London", "locality": []}
    seed = next(n for n in range(50) if not calibration_data(requests([row]), seed=n).calibration_edits)
    dataset = {"locality": str(locality)}
    done = edit("pico_gpt2", [row], tmp_path / "p", **verified, seed=seed, dataset=dataset)
    assert done.calibration is not None
    assert done.calibration.counts["unrelated"] > 0


# What was learnt of a base is kept


def corpus_reads(reporter: Any) -> int:
    return sum(job.label == READING for job in reporter.jobs)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("MELO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scope"


FEW = {"calibration": QUICK_SCOPE}
ONE = [{"prompt": "Who is the prime minister of Britain?", "target": "London"}]


def test_a_second_project_on_the_same_base_does_not_read_the_corpus_again(
    edit: Edit, verified: dict[str, Any], cache: Path, reporter: Any, tmp_path: Path
) -> None:
    first = edit("pico_gpt2", ONE, tmp_path / "p", reporter=reporter, **verified, **FEW)
    assert (corpus_reads(reporter), len(list(cache.iterdir()))) == (1, 1)
    # What is learnt does not depend on the seed, so recipes of another one share it.
    again = edit("pico_gpt2", ONE, tmp_path / "q", reporter=reporter, seed=5, **verified, **FEW)
    assert corpus_reads(reporter) == 1
    assert first.calibration is not None and again.calibration is not None
    assert again.calibration.threshold == first.calibration.threshold
    edit("pico_llama", ONE, tmp_path / "r", reporter=reporter, **verified, **FEW)
    assert (corpus_reads(reporter), len(list(cache.iterdir()))) == (2, 2)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_cache_is_learnt_anew(
    edit: Edit, verified: dict[str, Any], cache: Path, reporter: Any, tmp_path: Path, damage: str
) -> None:
    edit("pico_gpt2", ONE, tmp_path / "p", reporter=reporter, **verified, **FEW)
    [path] = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-100], "empty": b"", "noise": b"\xff" * 64}[damage])
    edit("pico_gpt2", ONE, tmp_path / "q", reporter=reporter, **verified, **FEW)
    assert corpus_reads(reporter) == 2
    assert path.read_bytes() == whole
    assert reporter.warnings == []


def test_a_cache_that_cannot_be_written_is_a_warning(
    edit: Edit, verified: dict[str, Any], cache: Path, reporter: Any, tmp_path: Path
) -> None:
    cache.parent.write_text("in the way")
    assert edit("pico_gpt2", ONE, tmp_path / "p", reporter=reporter, **verified, **FEW).count("solved") == 1
    assert [line.partition(" (")[0] for line in reporter.warnings] == ["the scope model cannot be cached"]


# A sentence encoder in the base's place


@pytest.fixture(scope="module")
def encoders(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sentence encoders that differ in one weight."""
    first = models("pico_bert")
    other = Path(shutil.copytree(first, tmp_path_factory.mktemp("encoders") / "other"))
    weights = load_file(other / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.weight"] += 0.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return first, other


@pytest.fixture(scope="module")
def encoded(
    edit: Edit,
    rows: Rows,
    verified: dict[str, Any],
    encoders: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A GPT-2 project whose routes an encoder gives. To be read only."""
    key = {**verified["key"], "encoder": str(encoders[0])}
    path = tmp_path_factory.mktemp("encoded") / "p"
    done = edit("pico_gpt2", rows["pico_gpt2"], path, **{**verified, "key": key})
    assert done.count("solved") == 6
    return path


def passes(model: torch.nn.Module, ask: Callable[[], Any]) -> int:
    """How often a model is run while something is asked."""
    ran: list[None] = []
    hook = model.register_forward_pre_hook(lambda *_: ran.append(None))
    try:
        ask()
    finally:
        hook.remove()
    return len(ran)


def test_routes_come_from_the_encoder(encoded: Path, rows: Rows) -> None:
    opened = open_project(encoded)
    base = opened.routed.base
    prompts = [row["prompt"] for row in rows["pico_gpt2"]]

    def ask() -> None:
        routes = opened.routed.router.routes(prompts)
        assert [route.fired.edit_id for route in routes if route.fired] == [f"e{n:06d}" for n in range(1, 7)]

    assert base.encoder is not None
    assert (passes(base.model, ask), passes(base.encoder.model, ask)) == (0, 1)
    assert [row.edited for row in query(opened, prompts)] == [row["target"] for row in rows["pico_gpt2"]]


def test_an_encoder_reads_with_the_tuning_that_the_project_was_calibrated_with(
    encoded: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, drawn = "encoder.layer.1.output.dense", torch.Generator().manual_seed(0)
    plain = open_project(encoded)
    assert plain.routed.base.encoder is not None
    out, into = plain.routed.base.encoder.model.get_submodule(name).weight.shape
    tuning = Tuning({name: (torch.randn(2, into, generator=drawn), torch.randn(out, 2, generator=drawn))})
    path = Path(shutil.copytree(encoded, tmp_path / "p"))
    with monkeypatch.context() as carried:
        carried.setattr(scope_cache, "tuning_of", lambda _: tuning)
        few = [f"calibration.questions={QUICK_SCOPE['questions']}"]
        calibrate_again(path, few, SilentReporter(), command=COMMAND)
    opened = open_project(path)
    base, key_map = opened.routed.base, opened.project.key_map
    assert base.encoder is not None and key_map is not None
    kept = Tuning.from_arrays({key: torch.tensor(array) for key, array in key_map.arrays.items()})
    assert kept.digest() == tuning.digest()
    assert torch.equal(
        base.encoder.model.get_submodule(name).weight,
        plain.routed.base.encoder.model.get_submodule(name).weight,
    )
    prompts = [row["prompt"] for row in rows["pico_gpt2"]]
    assert [row.edited for row in query(opened, prompts)] == [row["target"] for row in rows["pico_gpt2"]]
    states = [each.routed.router.recorder.records(prompts)[0].tokens for each in (plain, opened)]
    assert not np.array_equal(*states), "another state of the same words"
    export_peft(opened, tmp_path / "out", SilentReporter())
    router = open_router(tmp_path / "out" / "router")
    asked = [*prompts, "Which court was it", "What is it?"]
    mine, theirs = opened.routed.router.routes(asked), router.routes(asked)
    for one, other in zip(mine, theirs, strict=True):
        assert one.nearest is not None and other.nearest is not None
        assert one.nearest.edit_id == other.nearest.edit_id
        assert one.nearest.distance == pytest.approx(other.nearest.distance, abs=1e-4)


@pytest.mark.parametrize(("kind", "questions"), [("pico_bert", False), ("pico_gpt2", True)])
def test_the_texts_of_a_classifier_are_no_questions(
    shared: Callable[..., OpenProject], tmp_path: Path, kind: str, questions: bool
) -> None:
    opened = shared(kind, "verified")
    rule = opened.routed.router.rule
    assert isinstance(rule, Verified) and rule.questions is questions
    export_peft(opened, tmp_path / "out", SilentReporter())
    base = opened.routed.base
    exported = open_router(tmp_path / "out" / "router", base.model, base.tokenizer).rule
    assert isinstance(exported, Verified) and exported.questions is questions


def test_another_encoder_is_refused_and_one_that_moved_is_not(
    encoded: Path, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(BaseMismatchError, match="its scope was learnt with another sentence encoder"):
        open_project(encoded, encoder=str(encoders[1]))
    adapted = shutil.copytree(encoders[0], tmp_path / "moved")
    assert open_project(encoded, encoder=str(adapted)).routed.router.routes(["Which court was it"])[0].fired


def test_a_project_is_given_another_encoder_by_calibrating(
    encoded: Path, encoders: tuple[Path, Path], rows: Rows, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(encoded, tmp_path / "p"))
    prompts = [row["prompt"] for row in rows["pico_gpt2"]]
    for named in (str(encoders[1]), "null"):
        overrides = [f"key.encoder={named}", f"calibration.questions={QUICK_SCOPE['questions']}"]
        calibrate_again(path, overrides, SilentReporter(), command=COMMAND)
        opened = open_project(path)
        assert opened.recipe.key.encoder == (None if named == "null" else named)
        assert (opened.routed.base.encoder is None) == (named == "null")
        assert [row.edited for row in query(opened, prompts)] == [row["target"] for row in rows["pico_gpt2"]]
