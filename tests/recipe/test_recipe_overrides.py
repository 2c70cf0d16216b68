"""`--set a.b=c`: what it changes, and the line for each way in which it cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.errors import RecipeError
from melo_cli.recipe import Recipe, recipe_from_mapping

BASE: dict[str, Any] = {
    "name": "a",
    "task": "zsre",
    "model": {"name_or_path": "m"},
    "dataset": None,
    "key": {"radius": 1.0},
    "training": {
        "optimizer": {"name": "Adam", "lr": 0.01},
        "lr_scheduler": {"name": "StepLR", "step_size": 3},
    },
}


def with_set(*overrides: str) -> Recipe:
    return recipe_from_mapping(BASE, overrides, where="r.yaml")


def fault(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        with_set(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_value_is_read_as_yaml() -> None:
    recipe = with_set(
        "training.max_steps=20",
        "training.optimizer.lr=1e-3",
        "model.trust_remote_code=true",
        "model.revision=null",
        "lora.target_modules=[a, b.c]",
        "model.device=cuda:1",
    )
    assert recipe.training.max_steps == 20
    assert recipe.training.optimizer.arguments == {"lr": 0.001}
    assert recipe.model.trust_remote_code is True
    assert recipe.model.revision is None
    assert recipe.lora.target_modules == ("a", "b.c")
    assert recipe.model.device == "cuda:1"


def test_the_first_equals_sign_splits() -> None:
    assert with_set("model.name_or_path=a=b=c").model.name_or_path == "a=b=c"


def test_arguments_can_be_added_and_sections_replaced() -> None:
    assert with_set("training.optimizer.eps=1e-6").training.optimizer.arguments == {"lr": 0.01, "eps": 1e-6}
    replaced = with_set("training.lr_scheduler={name: CosineAnnealingLR, T_max: 9}").training.lr_scheduler
    assert replaced is not None
    assert (replaced.name, replaced.arguments) == ("CosineAnnealingLR", {"T_max": 9})
    assert with_set("training.lr_scheduler=").training.lr_scheduler is None


def test_sections_that_are_missing_or_null_are_made() -> None:
    assert with_set("lora.rank=7").lora.rank == 7
    dataset = with_set("dataset.edits=e.jsonl", "dataset.max_edits=5").dataset
    assert dataset is not None
    assert (dataset.edits, dataset.max_edits) == ("e.jsonl", 5)


def test_the_last_of_two_wins_and_the_mapping_given_stays_as_it_was() -> None:
    before = copy.deepcopy(BASE)
    assert with_set("lora.rank=3", "training.optimizer.lr=1", "lora.rank=4").lora.rank == 4
    assert before == BASE


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.max_steps", "--set training.max_steps: has no value; write --set section.key=value"),
        ("=3", "--set =3: has an empty key"),
        ("lora..rank=3", "--set lora..rank=3: has an empty key"),
        ("lora.rank=[1", "--set lora.rank=[1: is not YAML"),
        ("lora.target_modules=*mlp", "anchors and aliases (& and *) are not allowed"),
        ("name.x=3", "--set name.x=3: name is a value, not a section"),
        ("training.optimizer.lr.x=3", "training.optimizer.lr is a value, not a section"),
        (
            "training.max_step=3",
            "r.yaml: training.max_step (--set): unknown key, did you mean training.max_steps?",
        ),
        ("max_steps=3", "r.yaml: max_steps (--set): unknown key, did you mean training.max_steps?"),
        ("lora.rank=two", 'r.yaml: lora.rank (--set): must be a whole number, found "two"'),
        ("dataset.max_edits=5", "r.yaml: dataset.edits: is missing"),
        ("model=3", "r.yaml: model (--set): must be a section of keys and values, found 3"),
        ("lora={rank: 0}", "r.yaml: lora.rank (--set): must be at least 1, found 0"),
    ],
)
def test_each_fault_says_where_it_came_from(override: str, line: str) -> None:
    assert line in fault(override)


def test_the_whole_is_checked_once_all_are_applied() -> None:
    """The first leaves the recipe without a radius, the second gives it one again."""
    assert with_set("key={}", "key.radius=2").key.radius == 2


plain = st.integers() | st.booleans() | st.text(st.characters(codec="ascii", categories=["L"]), min_size=1)


@given(st.lists(st.tuples(st.sampled_from(["eps", "momentum", "amsgrad"]), plain), max_size=6))
def test_overrides_act_like_assignments_in_order(assignments: list[tuple[str, Any]]) -> None:
    texts = [f"training.optimizer.{key}={yaml.safe_dump(value)}" for key, value in assignments]
    expected = {"lr": 0.01}
    for key, value in assignments:
        expected[key] = value
    assert with_set(*texts).training.optimizer.arguments == expected
