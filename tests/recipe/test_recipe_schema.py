"""What a recipe may hold, and the line that comes out when it holds something else."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.errors import RecipeError
from melo_cli.recipe import load_recipe, recipe_from_mapping

MINIMAL: dict[str, Any] = {
    "name": "a",
    "task": "zsre",
    "model": {"name_or_path": "some/model"},
    "key": {"radius": 1.0},
}


def mapping(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MINIMAL), **changes}


def fault(**changes: Any) -> str:
    """The line for a mapping with a fault, checked to be one line that ends the program with 2."""
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(mapping(**changes), where="r.yaml")
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert line.startswith("r.yaml: ")
    assert "\n" not in line
    return line.removeprefix("r.yaml: ")


def test_defaults_fill_in_what_a_short_recipe_leaves_out() -> None:
    recipe = recipe_from_mapping(MINIMAL)
    assert (recipe.lora.target_modules, recipe.lora.rank, recipe.lora.alpha) == ("auto", 2, 40.0)
    assert (recipe.key.layer, recipe.key.pooling) == ("auto", "auto")
    assert recipe.model.trust_remote_code is False
    assert recipe.dataset is None
    assert recipe.generation.max_new_tokens == 32
    assert recipe.training.lr_scheduler is None


def test_a_recipe_is_routed_by_verifying_and_one_that_gives_a_radius_by_that() -> None:
    bare = {name: value for name, value in MINIMAL.items() if name != "key"}
    assert recipe_from_mapping(bare).routing.scope == "verified"
    assert recipe_from_mapping(MINIMAL).routing.scope == "radius"


def test_scale_is_alpha_over_rank() -> None:
    assert recipe_from_mapping(mapping(lora={"rank": 4, "alpha": 400})).lora.scale == 100


def test_sections_and_values_cannot_be_changed_afterwards() -> None:
    recipe = recipe_from_mapping(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        recipe.lora.rank = 8


def test_optimizer_and_scheduler_keep_their_arguments_in_order() -> None:
    optimizer = {"name": "SGD", "lr": 0.1, "nesterov": True, "betas": [0.9, 0.99], "momentum": None}
    recipe = recipe_from_mapping(
        mapping(training={"optimizer": optimizer, "lr_scheduler": {"name": "StepLR"}})
    )
    assert recipe.training.optimizer.name == "SGD"
    assert list(recipe.training.optimizer.arguments.items()) == list(optimizer.items())[1:]
    assert recipe.training.lr_scheduler is not None
    assert recipe.training.lr_scheduler.arguments == {}


@pytest.mark.parametrize("value", ["auto", r"encoder\.block\.\d+\.layer\.1\..*", ["a.b", "c"]])
def test_target_modules_take_all_three_forms(value: Any) -> None:
    targets = recipe_from_mapping(mapping(lora={"target_modules": value})).lora.target_modules
    assert targets == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"training": {"max_step": 3}}, "training.max_step: unknown key, did you mean training.max_steps?"),
        ({"max_step": 3}, "max_step: unknown key, did you mean training.max_steps?"),
        ({"loora": {}}, "loora: unknown key, did you mean lora?"),
        ({"lora": {"zebra": 1}}, "lora.zebra: unknown key, known keys here are target_modules, rank, alpha"),
        ({"lora": {"rank": 0}}, "lora.rank: must be at least 1, found 0"),
        ({"lora": {"rank": 1.5}}, "lora.rank: must be a whole number, found 1.5"),
        ({"lora": {"rank": True}}, "lora.rank: must be a whole number, found true"),
        ({"lora": {"rank": "two"}}, 'lora.rank: must be a whole number, found "two"'),
        ({"lora": {"alpha": 0}}, "lora.alpha: must be above 0, found 0"),
        ({"lora": {"alpha": float("nan")}}, "lora.alpha: must be a finite number, found NaN"),
        ({"lora": 3}, "lora: must be a section of keys and values, found 3"),
        ({"lora": {"target_modules": []}}, "lora.target_modules: must name at least one module"),
        ({"lora": {"target_modules": ["a", "a"]}}, "lora.target_modules: names a module twice"),
        ({"lora": {"target_modules": "h.(3"}}, "lora.target_modules: is not a regular expression"),
        ({"key": {"radius": -1}}, "key.radius: must be auto or a number above 0, found -1"),
        ({"key": {"radius": "wide"}}, 'key.radius: must be auto or a number above 0, found "wide"'),
        ({"key": {"radius": True}}, "key.radius: must be auto or a number above 0, found true"),
        ({"key": {"pooling": "max"}}, "key.pooling: must be one of auto, last, first, mean, learned"),
        ({"routing": {"max_false_fire": {"hard": 2}}}, "routing.max_false_fire.hard: must be at most 1"),
        ({"routing": {"max_false_fire": {"hrd": 0}}}, "did you mean routing.max_false_fire.hard?"),
        ({"calibration": {"share": -0.5}}, "calibration.share: must be at least 0.0, found -0.5"),
        ({"calibration": {"questions": 0}}, "calibration.questions: must be at least 1, found 0"),
        ({"routing": {"scope": "both"}}, "routing.scope: must be verified or radius"),
        (
            {"routing": {"scope": "verified"}},
            "key.radius needs routing.scope radius, but routing.scope is verified",
        ),
        (
            {"key": {"pooling": "last"}},
            "key.pooling needs routing.scope radius, but routing.scope is verified",
        ),
        (
            {"key": {}, "routing": {"scope": "radius"}},
            "routing.scope radius needs a number as key.radius",
        ),
        (
            {"key": {"radius": 1.0, "encoder": "an/encoder"}},
            "key.encoder needs routing.scope verified, but routing.scope is radius",
        ),
        ({"training": {"retries": 4}}, "training.retries: must be at most 3, found 4"),
        ({"task": "zrse"}, "task: must be one of scotus, zsre, hallucination, counterfact, custom"),
        ({"name": "a/b"}, "name: must consist of letters, digits"),
        ({"name": 7}, "name: must be text, found 7, so put it in quotes"),
        ({"seed": -1}, "seed: must be at least 0, found -1"),
        ({"seed": None}, "seed: must be a whole number, found null"),
        ({"model": {"name_or_path": " "}}, "model.name_or_path: must not be empty"),
        (
            {"model": {"name_or_path": "m", "device": "gpu"}},
            "model.device: must be auto, cpu, mps, cuda or cuda:N",
        ),
        ({"model": {"name_or_path": "m", "trust_remote_code": "yes"}}, "must be true or false"),
        (
            {"model": {"name_or_path": "m", "template": "chta"}},
            "model.template: must be one of auto, none, chat",
        ),
        ({"dataset": {"edits": "e", "max_edits": 0}}, "dataset.max_edits: must be at least 1, found 0"),
        ({"dataset": {}}, "dataset.edits: is missing"),
        ({"training": {"batch_size": 0}}, "training.batch_size: must be at least 1"),
        ({"training": {"optimizer": {"lr": "fast"}}}, "training.optimizer: lr must be a number above 0"),
        (
            {"training": {"optimizer": {"name": "SGD", "lr": 0}}},
            "training.optimizer: lr must be a number above 0",
        ),
        ({"training": {"optimizer": {"x": {"y": 1}}}}, "training.optimizer.x: must be a number, text"),
        ({"training": {"lr_scheduler": {"gamma": 1}}}, "training.lr_scheduler.name: is missing"),
        ({"generation": {"max_new_tokens": 0}}, "generation.max_new_tokens: must be at least 1"),
    ],
)
def test_each_fault_has_its_path_and_what_is_wrong(changes: dict[str, Any], line: str) -> None:
    assert line in fault(**changes)


def test_missing_sections_are_named_by_the_values_that_they_need() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({"name": "a"})
    assert str(caught.value) == ("recipe: task: is missing; model.name_or_path: is missing")


def test_all_faults_are_reported_together() -> None:
    line = fault(task="zsr", lora={"rnk": 1, "alpha": "x"}, training={"max_steps": 0})
    for path in ("task:", "lora.rnk:", "lora.alpha:", "training.max_steps:"):
        assert path in line


def test_names_of_people_need_rows_without_them() -> None:
    rows = {"edits": "e", "concepts": "names.txt"}
    assert "concepts needs format wikibio-hallucination, but format is melo" in fault(
        dataset={**rows, "format": "melo"}
    )
    assert recipe_from_mapping(mapping(dataset={**rows, "format": "wikibio-hallucination"})).dataset


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
positive = st.floats(min_value=1e-6, max_value=1e6)
arguments = st.dictionaries(
    texts.filter(lambda key: key not in ("name", "lr")), scalars | st.lists(scalars, max_size=3), max_size=4
)


def routed_by(scope: str) -> st.SearchStrategy[dict[str, Any]]:
    """The sections that a rule of routing needs."""
    poolings = st.sampled_from(["auto", "last", "first", "mean", "learned"])
    key: dict[str, st.SearchStrategy[Any]] = {"encoder": st.none() | texts}
    if scope == "radius":
        key = {"radius": positive, "pooling": poolings}
    return st.fixed_dictionaries({"key": st.fixed_dictionaries(key), "routing": st.just({"scope": scope})})


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "name": draw(names),
        "task": draw(st.sampled_from(["scotus", "zsre", "hallucination", "counterfact", "custom"])),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "model": {"name_or_path": draw(texts), "revision": draw(st.none() | texts)},
        "dataset": draw(st.none() | st.fixed_dictionaries({"edits": texts, "max_edits": st.integers(1)})),
        "lora": {
            "target_modules": draw(st.lists(texts, min_size=1, max_size=3, unique=True)),
            "rank": draw(st.integers(1, 99)),
            "alpha": draw(positive),
        },
        **draw(st.sampled_from(("verified", "radius")).flatmap(routed_by)),
        "training": {
            "optimizer": {"name": draw(texts), "lr": draw(positive), **draw(arguments)},
            "lr_scheduler": draw(st.none() | arguments.map(lambda given: {"name": "StepLR", **given})),
        },
    }


@given(mappings())
def test_a_recipe_comes_back_from_its_own_mapping(given_mapping: dict[str, Any]) -> None:
    recipe = recipe_from_mapping(given_mapping)
    again = recipe_from_mapping(recipe.to_mapping())
    assert again == recipe
    assert list(again.training.optimizer.arguments) == list(recipe.training.optimizer.arguments)
    assert again.to_mapping() == recipe.to_mapping()


def test_the_mapping_is_plain_and_complete() -> None:
    written = recipe_from_mapping(mapping(lora={"target_modules": ["a", "b"]})).to_mapping()
    assert json.loads(json.dumps(written)) == written
    assert set(written) == {
        "name", "task", "seed", "model", "dataset", "lora", "key", "routing", "calibration", "training",
        "generation",
    }  # fmt: skip


nested = st.recursive(
    scalars, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=8
)


@given(st.dictionaries(st.sampled_from([*MINIMAL, "lora", "training", "dataset", "x"]) | st.text(), nested))
@settings(max_examples=50)
def test_any_mapping_is_a_recipe_or_a_recipe_error(anything: dict[str, Any]) -> None:
    for candidate in (anything, {**MINIMAL, **anything}):
        try:
            recipe = recipe_from_mapping(candidate, where="r.yaml")
        except RecipeError as error:
            assert str(error).startswith("r.yaml: ")
        else:
            assert recipe_from_mapping(recipe.to_mapping()) == recipe


def test_the_recipe_layer_stays_light() -> None:
    """Loading a recipe in a fresh interpreter pulls in neither torch nor typer."""
    code = "import sys, melo_cli.recipe; sys.exit(any(name in sys.modules for name in ('torch', 'typer')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: a\ntask: zsre\nmodel: {name_or_path: m}\nkey: {radius: 75}\n")
    assert load_recipe(path).key.radius == 75
