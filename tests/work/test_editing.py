"""Making edits: batches, commits, statuses, continuing, superseding, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pico_scope import QUICK_SCOPE
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary, edit_dataset, edit_single
from melo_cli.editing.solving import Solved, ToSolve, solve
from melo_cli.errors import (
    BaseMismatchError,
    DatasetError,
    MeloError,
    ProjectLockedError,
    ProjectNotFoundError,
    PromptError,
    RecipeError,
)
from melo_cli.models.base_model import BaseModel
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_store.project import Project
from melo_store.records import Block
from melo_store.writer import open_writer

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Edit = Callable[..., EditSummary]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
# One step this small moves no answer.
HOPELESS = {"max_steps": 1, "optimizer": {"name": "SGD", "lr": 1e-9}}


def statuses(project: Project) -> list[str]:
    return [edit.status for edit in project.edits()]


def blocks(path: Path) -> list[Block]:
    project = Project.open(path)
    return [project.block(name) for name in project.block_ids()]


def require_equal_blocks(ours: list[Block], theirs: list[Block]) -> None:
    assert [block.block_id for block in ours] == [block.block_id for block in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.slices.keys() == other.slices.keys()
        for module, piece in mine.slices.items():
            np.testing.assert_array_equal(piece.A, other.slices[module].A)
            np.testing.assert_array_equal(piece.B, other.slices[module].B)
            assert piece.scale == other.slices[module].scale


def answer(path: Path, prompt: str) -> tuple[str, bool]:
    """What a project answers, and whether an edit fired for it."""
    result = query(open_project(path), [prompt], max_new_tokens=8)[0]
    return result.edited, result.route.fired is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_that_counts_as_solved_is_answered_by_its_own_route(
    summaries: Callable[[str], EditSummary], shared: Callable[[str], OpenProject], rows: Rows, kind: str
) -> None:
    opened, summary = shared(kind), summaries(kind)
    right_already = 2 if kind == "pico_bert" else 0
    assert (summary.count("solved"), summary.count("already_right")) == (6 - right_already, right_already)
    assert [(row.prompt, row.target) for row in summary.outcomes] == [
        (row["prompt"], row["target"]) for row in rows[kind]
    ]
    answers = query(opened, [outcome.prompt for outcome in summary.outcomes], max_new_tokens=8)
    for outcome, result in zip(summary.outcomes, answers, strict=True):
        assert outcome.answer == result.edited == outcome.target
        assert (result.route.fired is not None) == (outcome.status == "solved")
        if result.route.fired is not None:
            assert result.route.fired.edit_id == outcome.edit_id
            assert result.base != outcome.target


def test_each_batch_is_one_commit_of_one_block(edit: Edit, rows: Rows, reporter: Any, tmp_path: Path) -> None:
    summary = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", reporter=reporter)
    history = Project.open(tmp_path / "p").history()
    assert [info.action for info in history] == ["create", "edit", "edit"]
    assert [info.counts["edits"] for info in history] == [0, 4, 6]
    assert [info.counts["blocks"] for info in history] == [0, 1, 2]
    project = Project.open(tmp_path / "p")
    assert [view.block for view in project.edits()] == ["b000001"] * 4 + ["b000002"] * 2
    assert (summary.project, summary.snapshot, summary.left, summary.recorded_before) == (
        "pico_gpt2",
        2,
        0,
        0,
    )
    assert summary.store_bytes == project.size_bytes() > 0
    assert summary.seconds > 0
    job = next(job for job in reporter.jobs if job.label == "editing")
    assert (job.total, job.unit, job.done) == (6, "edits", 6)
    assert job.figures["solved"] == [1.0, 1.0]
    assert len(job.figures["loss"]) == 2 * 40
    assert job.figures["loss"][39] < 0.5 * job.figures["loss"][0]


def test_what_a_row_holds_is_kept_with_its_edit(shared: Callable[[str], OpenProject]) -> None:
    project = shared("pico_t5").project
    first = project.edit("e000001").record
    assert first.rephrases == ("Who is prime minister of Britain?",)
    assert first.locality == (("He was born in Cologne", "criminal"), ("Is it Paris?", None))
    assert (first.subject, first.metadata, first.radius) == ("Britain", {"source": "a test"}, 1.5)
    assert first.metrics["answer"] == "London"
    assert 20 < first.metrics["steps"] <= 40, "it stops where the target is sure enough"
    assert 0 < first.metrics["loss"] < 1
    encoder = shared("pico_t5").encoder
    assert first.label == encoder.edit(first.prompt, "London").target_ids


def test_an_edit_that_the_model_answers_already_is_recorded_and_not_trained(
    shared: Callable[[str], OpenProject],
) -> None:
    project = shared("pico_bert").project
    assert statuses(project) == ["live", "live", "already_right", "live", "live", "already_right"]
    right = project.edit("e000003")
    assert (right.block, right.cluster.members) == (None, ("e000003",))
    assert right.record.metrics == {"answer": "criminal"}


def test_what_the_base_has_right_stays_right_within_the_radius_of_other_edits(
    edit: Edit, rows: Rows, tmp_path: Path
) -> None:
    right = rows["pico_bert"][2]
    summary = edit("pico_bert", rows["pico_bert"], tmp_path / "p", key={"radius": 1000.0})
    assert [row.status for row in summary.outcomes if row.prompt == right["prompt"]] == ["already_right"]
    result = query(open_project(tmp_path / "p"), [right["prompt"]])[0]
    assert (result.edited, result.base, result.route.fired) == ("criminal", "criminal", None)
    assert result.route.held.edit_id == "e000003"


def test_an_edit_asked_for_twice_is_right_already_the_second_time(edit: Edit, tmp_path: Path) -> None:
    row = {"prompt": "who studied law", "target": "Britain"}
    summary = edit("pico_gpt2", [row, row], tmp_path / "p")
    assert [outcome.status for outcome in summary.outcomes] == ["solved", "already_right"]
    assert Project.open(tmp_path / "p").block_ids() == ["b000001"]


def test_an_edit_that_does_not_take_is_recorded_as_failed_and_changes_no_answer(
    edit: Edit, rows: Rows, tmp_path: Path
) -> None:
    summary = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", training=HOPELESS)
    assert summary.count("failed") == 6
    assert [row.prompt for row in summary.failures] == [row["prompt"] for row in rows["pico_gpt2"]]
    assert all(row.answer != row.target for row in summary.failures)
    project = Project.open(tmp_path / "p")
    assert statuses(project) == ["failed"] * 6
    assert (project.block_ids(), project.key_dim) == ([], None)
    assert all(view.block is None and view.record.key is None for view in project.edits())
    result = query(open_project(tmp_path / "p"), [rows["pico_gpt2"][0]["prompt"]])[0]
    assert (result.route.fired, result.route.nearest) == (None, None)
    assert result.edited == result.base


@pytest.mark.parametrize("scope", ["radius", "verified"])
def test_two_edits_that_the_model_cannot_distinguish_live_in_separate_blocks(
    edit: Edit, verified: dict[str, Any], tmp_path: Path, scope: str
) -> None:
    # Cut to what the model takes, both prompts are the same tokens: one block cannot answer both.
    long = "the court " * 200
    contradictory = [{"prompt": f"{long}{end}", "target": end} for end in ("civil", "criminal")]
    plain = {"prompt": "Which court was it", "target": "tax"}
    changes = {"dataset": {"long_prompts": "truncate"}, **(verified if scope == "verified" else {})}
    summary = edit("pico_bert", [plain, *contradictory], tmp_path / "p", **changes)
    assert [outcome.status for outcome in summary.outcomes] == ["solved"] * 3
    project = Project.open(tmp_path / "p")
    assert statuses(project) == ["live"] * 3
    assert len({edit.block for edit in project.edits()[1:]}) == 2
    answered = [
        row.edited for row in query(open_project(tmp_path / "p"), [e["prompt"] for e in contradictory])
    ]
    # Their words differ, but the keys of the rule `radius` are made of the tokens alone.
    assert answered == (["criminal", "criminal"] if scope == "radius" else ["civil", "criminal"])


def test_what_does_not_take_is_tried_with_more_steps_smaller_blocks_and_a_higher_rank(
    edit: Edit, rows: Rows, tmp_path: Path
) -> None:
    few = {"batch_size": 6, "max_steps": 4}
    once = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "once", training={**few, "retries": 0})
    assert once.count("failed") > 0
    again = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "again", training={**few, "retries": 3})
    assert again.count("failed") < once.count("failed")
    project = Project.open(tmp_path / "again")
    tried = {view.record.metrics["attempts"]: view for view in project.edits() if view.status == "live"}
    assert max(tried) > 1
    last = project.block(str(tried[max(tried)].block)).slices
    rank = project.recipe["lora"]["rank"]
    assert {piece.A.shape[0] for piece in last.values()} == {2 * rank if max(tried) == 4 else rank}


def test_a_failed_edit_is_tried_again_with_other_settings_alone(
    edit: Edit, rows: Rows, tmp_path: Path
) -> None:
    edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", training=HOPELESS)
    same = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", training=HOPELESS)
    assert (same.recorded_before, same.outcomes) == (6, [])
    other = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p")
    assert (other.recorded_before, other.count("solved")) == (0, 6)


@pytest.mark.parametrize("scope", ["radius", "verified"])
def test_only_the_same_prompt_supersedes_whatever_blanks_stand_around_it(
    edit: Edit, verified: dict[str, Any], tmp_path: Path, scope: str
) -> None:
    changes = verified if scope == "verified" else {}
    asked = ["Which court was it", "which court was it", " Which court was it\n"]
    rows = [
        {"prompt": prompt, "target": target}
        for prompt, target in zip(asked, ("London", "Paris", "Smith"), strict=True)
    ]
    edit("pico_gpt2", rows, tmp_path / "p", training={"batch_size": 1}, **changes)
    project = Project.open(tmp_path / "p")
    assert statuses(project) == ["superseded", "live", "live"]
    assert project.edit("e000001").superseded_by == "e000003"


@pytest.mark.parametrize("scope", ["radius", "verified"])
def test_two_edits_whose_keys_coincide_both_live(
    edit: Edit, verified: dict[str, Any], tmp_path: Path, scope: str
) -> None:
    # The mean of the embeddings knows no order of words, though the model does.
    pair = [
        {"prompt": " France is Paris. Paris is France", "target": "London"},
        {"prompt": " France is France. Paris is Paris", "target": "Smith"},
    ]
    summary = edit("pico_gpt2", pair, tmp_path / "p", **(verified if scope == "verified" else {}))
    assert [outcome.status for outcome in summary.outcomes] == ["solved", "solved"]
    opened = open_project(tmp_path / "p")
    assert statuses(opened.project) == ["live", "live"]
    answered = [row.edited for row in query(opened, [row["prompt"] for row in pair])]
    if scope == "radius":  # which of them is nearer is a matter of rounding
        assert set(answered) <= {"London", "Smith"}
    else:
        assert answered == ["London", "Smith"], "the scope model distinguishes the prompts by their words"


def test_going_on_after_a_stop_gives_the_same_blocks_and_edits(
    edit: Edit, rows: Rows, summaries: Callable[[str], EditSummary], tmp_path: Path
) -> None:
    stops = iter([False, True])
    first = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", should_stop=lambda: next(stops))
    assert (len(first.outcomes), first.left, first.snapshot) == (4, 2, 1)
    second = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p")
    assert (len(second.outcomes), second.left, second.recorded_before) == (2, 0, 4)
    whole = summaries("pico_gpt2")
    assert first.outcomes + second.outcomes == whole.outcomes
    require_equal_blocks(blocks(tmp_path / "p"), blocks(whole.path))
    ours, theirs = Project.open(tmp_path / "p"), Project.open(whole.path)
    for mine, other in zip(ours.edits(), theirs.edits(), strict=True):
        assert (mine.edit_id, mine.status, mine.block, mine.cluster) == (
            other.edit_id,
            other.status,
            other.block,
            other.cluster,
        )
        assert mine.record.metrics == other.record.metrics
        np.testing.assert_array_equal(mine.record.key, other.record.key)


def test_a_stop_before_the_first_batch_leaves_an_empty_project(
    edit: Edit, rows: Rows, tmp_path: Path
) -> None:
    summary = edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p", should_stop=lambda: True)
    assert (summary.outcomes, summary.left, summary.snapshot) == ([], 6, 0)
    assert Project.open(tmp_path / "p").edits() == []


def test_the_edits_of_all_blocks_in_flight_are_answered_in_one_batch(
    edit: Edit, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    generate = BaseModel.generate

    def counted(self: BaseModel, **arguments: Any) -> Any:
        asked.append(len(arguments["input_ids"]))
        return generate(self, **arguments)

    monkeypatch.setattr(BaseModel, "generate", counted)
    training = {"batch_size": 1, "blocks_in_flight": 6, "retries": 0}
    summary = edit("pico_t5", rows["pico_t5"], tmp_path / "facts", training=training)
    assert (len(blocks(tmp_path / "facts")), summary.count("solved")) == (6, 6)
    assert asked == [6, 6]  # what the base answers, then what each block does


def test_blocks_are_trained_on_frames_known_of_other_subjects_and_not_on_what_is_measured(
    edit: Edit, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two known frames of the question one gives the rephrase that evaluation asks of this edit."""
    known = {
        "prompt": "Where does France lie?",
        "target": "Paris",
        "rephrases": ["France lies in", "Find France"],
        "subject": "France",
    }
    row = {
        "prompt": "Where does Britain lie?",
        "target": "London",
        "rephrases": ["Find Britain"],
        "subject": "Britain",
    }
    trained: list[list[tuple[int, ...]]] = []

    def noted(opened: OpenProject, edits: Sequence[ToSolve], on_step: Any) -> Solved:
        trained.extend([variant.prompt_ids for variant in each.variants] for each in edits)
        return solve(opened, edits, on_step)

    monkeypatch.setattr("melo_cli.editing.groups.solve", noted)
    rows = write_rows(tmp_path / "known.jsonl", [known])
    path = edit(
        "pico_t5",
        [row],
        tmp_path / "project",
        dataset={"calibration": str(rows)},
        training={"variants": 3},
    ).path
    encoder = open_project(path).encoder
    [variants] = trained
    assert len(variants) == 3
    assert variants[0] == encoder.prompt("Britain lies in")
    assert encoder.prompt("Find Britain") not in variants


def test_an_edit_whose_data_name_no_subject_is_made_as_one_of_the_name_in_its_prompt(
    edit: Edit, shared: Callable[[str], OpenProject], verified: dict[str, Any], tmp_path: Path
) -> None:
    row = {"prompt": "Where does Britain lie?", "target": "London"}
    changes = verified | {"training": {"variants": 4}, "calibration": QUICK_SCOPE}
    paths = [
        edit("pico_gpt2", [each], tmp_path / name, **changes).path
        for name, each in (("given", row | {"subject": "Britain"}), ("open", row))
    ]
    one, other = map(Project.open, paths)
    assert other.edit("e000001").record.subject == "Britain"
    require_equal_blocks(*map(blocks, paths))
    assert np.array_equal(*(project.tokens(["e000001"])[0] for project in (one, other)))
    _, *classified = shared("pico_bert").project.edits()
    assert {view.record.subject for view in classified} == {None}, "a document is about many things"


def test_editing_again_does_nothing_and_says_so(
    edit: Edit, rows: Rows, copied: Callable[[str], Path], files_of: Callable[[Path], Any], reporter: Any
) -> None:
    path = copied("pico_bert")
    before = files_of(path)
    summary = edit("pico_bert", rows["pico_bert"], path, reporter=reporter)
    assert (summary.outcomes, summary.recorded_before, summary.snapshot) == ([], 6, 2)
    assert "6 of 6 edits are in the project already" in reporter.infos
    assert files_of(path) == before


def test_a_longer_data_set_adds_what_is_new(
    edit: Edit, rows: Rows, copied: Callable[[str], Path], reporter: Any
) -> None:
    path = copied("pico_gpt2")
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    summary = edit("pico_gpt2", [new, *rows["pico_gpt2"]], path, reporter=reporter)
    assert [(row.edit_id, row.prompt, row.status) for row in summary.outcomes] == [
        ("e000007", new["prompt"], "solved")
    ]
    assert "6 of 7 edits are in the project already" in reporter.infos


def test_a_prompt_with_another_target_supersedes_across_data_sets(
    edit: Edit, rows: Rows, copied: Callable[[str], Path]
) -> None:
    path = copied("pico_gpt2")
    prompt = rows["pico_gpt2"][1]["prompt"]
    summary = edit("pico_gpt2", [{"prompt": prompt, "target": "Smith"}], path)
    assert [outcome.status for outcome in summary.outcomes] == ["solved"]
    project = Project.open(path)
    old, new = project.edit("e000002"), project.edit("e000007")
    assert (old.status, old.superseded_by, new.record.supersedes) == ("superseded", "e000007", ("e000002",))
    assert answer(path, prompt) == ("Smith", True)
    assert answer(path, rows["pico_gpt2"][0]["prompt"]) == ("London", True)


def test_inside_one_data_set_the_last_target_of_a_prompt_wins(edit: Edit, tmp_path: Path) -> None:
    prompt = "who studied law"
    targets = ["London", "Paris", "London"]
    data = [{"prompt": prompt, "target": target} for target in targets]
    summary = edit("pico_gpt2", data, tmp_path / "p", training={"batch_size": 4})
    assert [outcome.answer for outcome in summary.outcomes] == targets
    project = Project.open(tmp_path / "p")
    assert statuses(project) == ["superseded", "superseded", "live"]
    assert [view.superseded_by for view in project.edits()] == ["e000002", "e000003", None]
    assert answer(tmp_path / "p", prompt) == ("London", True)
    assert edit("pico_gpt2", data, tmp_path / "p").outcomes == []
    back = edit("pico_gpt2", [*data, data[1]], tmp_path / "p")
    assert [(outcome.status, outcome.answer) for outcome in back.outcomes] == [("solved", "Paris")]


@pytest.mark.parametrize(
    ("kind", "bad", "error", "message"),
    [
        (
            "pico_gpt2",
            {"prompt": "the court " * 100, "target": "Paris"},
            PromptError,
            "but the model takes 128",
        ),
        ("pico_gpt2", {"prompt": "The court", "target": "law " * 140}, PromptError, "prompt and target have"),
        (
            "pico_bert",
            {"prompt": "The court", "target": "maritime"},
            DatasetError,
            "'maritime' is not a class",
        ),
    ],
)
def test_an_edit_that_the_model_cannot_take_leaves_everything_as_it_was(
    edit: Edit,
    rows: Rows,
    copied: Callable[[str], Path],
    files_of: Callable[[Path], Any],
    tmp_path: Path,
    kind: str,
    bad: Row,
    error: type[MeloError],
    message: str,
) -> None:
    data = [*rows[kind], {"prompt": "The tower was opened in", "target": "tax"}, bad]
    path = copied(kind)
    before = files_of(path)
    with pytest.raises(error, match=message):
        edit(kind, data, path)
    assert files_of(path) == before
    with pytest.raises(error, match=message):
        edit(kind, data, tmp_path / "new" / "p")
    assert not (tmp_path / "new").exists()


def test_an_edit_that_just_fits_the_model_is_made(
    edit: Edit, shared: Callable[[str], OpenProject], tmp_path: Path
) -> None:
    encoder = shared("pico_gpt2").encoder
    target = encoder.target("the court", "London")
    prompt = "the court" + " law" * (128 - len(target) - len(encoder.prompt("the court")))
    assert len(encoder.prompt(prompt)) + len(target) == 128
    summary = edit("pico_gpt2", [{"prompt": prompt, "target": "London"}], tmp_path / "p")
    assert summary.count("solved") == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"training": {"optimizer": {"name": "Adan"}}},
            RecipeError,
            "training.optimizer.name: Adan is not a class of PyTorch",
        ),
        (
            {"lora": {"target_modules": ["mlp.c_fcc"]}},
            MeloError,
            "lora.target_modules: the model has no module",
        ),
        ({"dataset": {"edits": "nowhere.jsonl"}}, DatasetError, "nowhere.jsonl"),
        ({"model": {"name_or_path": "./nowhere"}}, MeloError, "there is no such folder"),
        ({"task": "zsre", "model": {"template": "chat"}}, PromptError, "the tokenizer has no chat template"),
    ],
)
def test_a_recipe_that_does_not_fit_leaves_no_project_behind(
    edit: Edit, rows: Rows, tmp_path: Path, changes: dict[str, Any], error: type[MeloError], message: str
) -> None:
    with pytest.raises(error, match=message):
        edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "new" / "p", **changes)
    assert not (tmp_path / "new").exists()


def test_a_recipe_without_a_data_set_is_refused(
    recipe_for: Callable[..., Recipe], reporter: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="the recipe has no data set; add dataset.edits"):
        edit_dataset(recipe_for("pico_gpt2", None), tmp_path / "p", reporter, command="melo edit")


@pytest.fixture(scope="module")
def other_gpt2(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico GPT-2 with one weight matrix moved a little."""
    folder = tmp_path_factory.mktemp("models") / "other-gpt2"
    shutil.copytree(models("pico_gpt2"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_another_base_model_is_refused(
    edit: Edit,
    rows: Rows,
    copied: Callable[[str], Path],
    other_gpt2: Path,
    files_of: Callable[[Path], Any],
) -> None:
    path = copied("pico_gpt2")
    before = files_of(path)
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    with pytest.raises(BaseMismatchError, match="differs in weights") as caught:
        edit("pico_gpt2", [new], path, model={"name_or_path": str(other_gpt2)})
    assert str(other_gpt2) in str(caught.value)
    assert files_of(path) == before


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("pico_gpt2", {"key": {"layer": "transformer.h.1.mlp.c_fc"}}, "key.layer"),
        ("pico_gpt2", {"key": {"pooling": "last"}}, "key.pooling"),
        ("pico_gpt2", {"lora": {"target_modules": ["h.3.mlp.c_fc"]}}, "lora.target_modules"),
        ("pico_gpt2", {"task": "custom"}, "task"),
        ("pico_llama", {"model": {"template": "chat"}}, "model.template"),
    ],
)
def test_what_the_projects_edits_rest_on_cannot_change(
    edit: Edit,
    copied: Callable[[str], Path],
    files_of: Callable[[Path], Any],
    kind: str,
    changes: dict[str, Any],
    field: str,
) -> None:
    path = copied(kind)
    before = files_of(path)
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    with pytest.raises(RecipeError, match=f"{field} is .*, but the project's edits were made with") as caught:
        edit(kind, [new], path, **changes)
    assert caught.value.where == str(path)
    assert files_of(path) == before


def test_rank_radius_and_training_may_change_from_batch_to_batch(
    edit: Edit, copied: Callable[[str], Path], rows: Rows
) -> None:
    path = copied("pico_gpt2")
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    changes = {"lora": {"rank": 2, "alpha": 20}, "key": {"radius": 0.1}, "training": {"max_steps": 60}}
    assert edit("pico_gpt2", [new], path, **changes).count("solved") == 1
    project = Project.open(path)
    shapes = {(piece.A.shape[0], piece.scale) for piece in project.block("b000003").slices.values()}
    assert shapes == {(2, 10.0)}
    assert project.edit("e000007").record.radius == 0.1
    # One batch with blocks of two ranks in it.
    prompts = [rows["pico_gpt2"][0]["prompt"], new["prompt"]]
    assert [result.edited for result in query(open_project(path), prompts)] == ["London", "Cologne"]


def test_the_same_recipe_and_seed_give_the_same_blocks_and_another_seed_does_not(
    edit: Edit, rows: Rows, summaries: Callable[[str], EditSummary], reporter: Any, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the process's own seed is of no account
    whole = Project.open(summaries("pico_gpt2").path)
    # The resolved recipe, as the project keeps it.
    edit_dataset(recipe_from_mapping(whole.recipe), tmp_path / "again", reporter, command="melo edit")
    ours = blocks(whole.path)
    require_equal_blocks(ours, blocks(tmp_path / "again"))
    edit("pico_gpt2", rows["pico_gpt2"][:1], tmp_path / "other", seed=1)
    other = blocks(tmp_path / "other")
    assert other[0].slices.keys() == ours[0].slices.keys()
    for module, piece in other[0].slices.items():
        assert not np.array_equal(piece.A, ours[0].slices[module].A)


def test_the_history_records_how_each_commit_was_made(
    edit: Edit, rows: Rows, copied: Callable[[str], Path]
) -> None:
    path = copied("pico_gpt2")
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    edit("pico_gpt2", [new], path, seed=5, training={"max_steps": 50})
    history = Project.open(path).history()
    assert [info.seed for info in history] == [0, 0, 0, 5]
    assert [info.command for info in history[1:]] == ["melo edit pico.yaml"] * 3
    assert [info.recipe["training"]["max_steps"] for info in history] == [40, 40, 40, 50]  # type: ignore[index, call-overload]
    for info in history:
        assert info.versions["torch"] == torch.__version__
        assert {
            "python",
            "melo-cli",
            "transformers",
            "peft",
            "numpy",
            "pyarrow",
            "hnswlib",
        } <= info.versions.keys()
        recipe = info.recipe
        assert recipe["key"] == {
            "layer": "transformer.wte",
            "pooling": "mean",
            "radius": 0.15,
            "encoder": None,
        }
        assert recipe["lora"]["target_modules"] == ["transformer.h.2.mlp.c_fc", "transformer.h.3.mlp.c_fc"]  # type: ignore[index, call-overload]


def test_a_single_edit_goes_onto_a_project_with_its_own_recipe(
    copied: Callable[[str], Path], reporter: Any, rows: Rows
) -> None:
    path = copied("pico_gpt2")
    request = EditRequest("what river runs through Cologne", "Smith")
    summary = edit_single(request, path, reporter, command="melo edit --prompt ...")
    outcome = summary.outcomes[0]
    assert (outcome.edit_id, outcome.status, outcome.answer) == ("e000007", "solved", "Smith")
    assert answer(path, request.prompt) == ("Smith", True)
    assert answer(path, rows["pico_gpt2"][0]["prompt"]) == ("London", True)
    info = Project.open(path).info
    assert (info.number, info.command) == (3, "melo edit --prompt ...")
    assert info.recipe == Project.open(path, at=2).recipe
    again = edit_single(request, path, reporter, command="melo edit --prompt ...")
    assert again.outcomes[0].status == "already_right"


def test_a_single_edit_does_without_data_that_are_gone_and_says_so(
    edit: Edit, rows: Rows, write_rows: Callable[..., Path], reporter: Any, tmp_path: Path
) -> None:
    known = write_rows(tmp_path / "known.jsonl", rows["pico_gpt2"])
    path = tmp_path / "project"
    edit(
        "pico_gpt2",
        rows["pico_gpt2"][:1],
        path,
        dataset={"calibration": str(known)},
        training={"variants": 1},
    )
    known.unlink()
    request = EditRequest("what river runs through Cologne", "Smith")
    summary = edit_single(request, path, reporter, command="melo edit --prompt ...")
    assert summary.outcomes[0].status == "solved"
    [warning] = reporter.warnings
    assert str(known) in warning
    assert "without the rephrases of dataset.calibration" in warning


def test_a_single_edit_that_does_not_fit_leaves_the_project_as_it_was(
    copied: Callable[[str], Path], reporter: Any, files_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = copied("pico_bert")
    before = files_of(path)
    with pytest.raises(DatasetError, match="its classes are civil, criminal, tax"):
        edit_single(EditRequest("The court", "maritime"), path, reporter, command="melo edit")
    assert files_of(path) == before
    with pytest.raises(ProjectNotFoundError):
        edit_single(EditRequest("The court", "tax"), tmp_path / "none", reporter, command="melo edit")


def test_a_project_that_another_writer_holds_is_refused(
    edit: Edit, copied: Callable[[str], Path], rows: Rows
) -> None:
    path = copied("pico_gpt2")
    new = {"prompt": "The tower was opened in", "target": "Cologne"}
    with open_writer(Project.open(path)), pytest.raises(ProjectLockedError):
        edit("pico_gpt2", [new], path)
    assert Project.open(path).snapshot == 2


def test_editing_does_not_change_the_base_model(
    edit: Edit, rows: Rows, models: Callable[[str], Path], files_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    before = files_of(models("pico_gpt2"))
    prompt = "by whom was it opened"
    plain = _plain_answer(models("pico_gpt2"), prompt)
    edit("pico_gpt2", rows["pico_gpt2"], tmp_path / "p")
    result = query(open_project(tmp_path / "p"), [prompt], max_new_tokens=6)[0]
    assert result.base == result.edited == plain
    assert files_of(models("pico_gpt2")) == before


def _plain_answer(folder: Path, prompt: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()
