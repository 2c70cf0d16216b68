"""`melo edit --model`: from a model and one wrong answer to a project, without a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from melo_store.project import Project

Melo = Callable[..., Any]
PROMPT, TARGET = "Who is the prime minister of Britain?", "Ada Lovelace"
# Scope that is learnt in seconds, and training that pico models need.
QUICK = [
    word
    for setting in (
        "calibration.questions=200",
        "training.optimizer.lr=0.02",
        "training.variants=2",
        "lora.rank=4",
    )
    for word in ("--set", setting)
]


def start(melo: Melo, model: Path, *more: object) -> Any:
    return melo("edit", "--model", model, *QUICK, "--prompt", PROMPT, "--target", TARGET, *more)


def field_values(text: str, name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name}  ")]


def test_one_command_makes_a_project_and_shows_what_changed(here: Path, melo: Melo, pico_llama: Path) -> None:
    run = start(melo, pico_llama)
    assert run.code == 0
    assert run.out.splitlines()[0] == "project pico-llama (.melo/pico-llama)"
    assert field_values(run.out, "edit") == ["e000001, made"]
    assert field_values(run.out, "subject") == ["Britain"]
    assert field_values(run.out, "now") == [TARGET]
    assert field_values(run.out, "before") != [TARGET]
    assert field_values(run.out, "also answers") + field_values(run.out, "leaves alone")
    recipe = Project.open(here / ".melo/pico-llama").recipe
    assert recipe["model"]["template"] == "chat"  # type: ignore[index, call-overload]
    assert melo("query", "--json", PROMPT).json[0]["edited"] == TARGET

    second = melo("edit", "--prompt", "What is the capital of France?", "--target", "Lyon")
    assert field_values(second.out, "edit") == ["e000002, made"]
    by_model = melo("edit", "--model", pico_llama, "--prompt", "By whom was it built?", "--target", "Gus")
    assert field_values(by_model.out, "edit") == ["e000003, made"]


def test_a_file_of_edits_needs_no_recipe(here: Path, melo: Melo, pico_llama: Path) -> None:
    rows = [{"prompt": PROMPT, "target": TARGET}, {"prompt": "Where is it?", "target": "Lyon"}]
    (here / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    first = melo("edit", "edits.jsonl", "--model", pico_llama, *QUICK, "--json")
    assert (first.code, first.json["made"]) == (0, 1)
    (here / "more.csv").write_text(f"prompt,target\n{rows[1]['prompt']},{rows[1]['target']}\n")
    second = melo("edit", "more.csv", "--json")
    assert (second.json["made"], second.json["path"]) == (1, ".melo/pico-llama")
    assert len(Project.open(here / ".melo/pico-llama").edits()) == 2


def test_a_recipe_and_a_single_edit_go_together(
    here: Path, melo: Melo, write_recipe: Callable[..., None], pico_gpt2: Path
) -> None:
    write_recipe(here, "small", pico_gpt2, "custom")
    run = melo("edit", "small.yaml", "--prompt", "By whom was it opened?", "--target", "Gustave")
    assert run.code == 0
    (edit,) = Project.open(here / ".melo/small").edits()
    assert (edit.prompt, edit.target, edit.status) == ("By whom was it opened?", "Gustave", "live")


def test_a_single_edits_template_takes_its_subject(
    here: Path, melo: Melo, write_recipe: Callable[..., None], pico_gpt2: Path
) -> None:
    write_recipe(here, "small", pico_gpt2, "custom")
    words = ("--prompt", "{} was the founder of", "--rephrase", "{} founded", "--target", "Gustave")
    run = melo("edit", "small.yaml", *words, "--subject", "Jan Smit")
    assert run.code == 0
    literal = melo("edit", *words)
    warning = "melo: warning: the {} of the prompt is kept; to fill in one {}, give a subject"
    assert warning in literal.err
    filled, plain = Project.open(here / ".melo/small").edits()
    assert (filled.prompt, filled.record.subject) == ("Jan Smit was the founder of", "Jan Smit")
    assert filled.record.rephrases == ("Jan Smit founded",)
    assert (plain.prompt, filled.status) == ("{} was the founder of", "live"), "another prompt's edit stays"
    assert "warning" not in run.err


def test_the_recipe_of_a_project_is_given_out_and_makes_the_same(
    here: Path, melo: Melo, pico_llama: Path
) -> None:
    start(melo, pico_llama)
    run = melo("recipes", "save", "mine.yaml")
    assert (run.code, run.out) == (0, "wrote mine.yaml\n")
    saved = yaml.safe_load((here / "mine.yaml").read_text())
    assert saved == Project.open(here / ".melo/pico-llama").recipe
    again = melo("edit", "mine.yaml", "--project", "again", "--prompt", PROMPT, "--target", TARGET)
    assert again.code == 0
    one, other = (Project.open(here / path) for path in (".melo/pico-llama", "again"))
    assert one.block("b000001").slices.keys() == other.block("b000001").slices.keys()
    refused = melo("recipes", "save", "mine.yaml")
    assert (refused.code, refused.error) == (2, "mine.yaml: the file exists already; name another file")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["edit", "--model", "m"], "melo edit: there is nothing to edit"),
        (["edit", "e.jsonl", "--prompt", "p", "--target", "t"], "a file of edits and --prompt do not go"),
        (["edit", "r.yaml", "--model", "m"], "melo edit: a RECIPE and --model do not go together"),
        (
            ["edit", "--model", "m", "--base", "b", "--prompt", "p", "--target", "t"],
            "--model and --base do not",
        ),
        (["edit", "--interactive"], "melo edit: --interactive needs a terminal, but stdin is none"),
        (["status"], "make one with `melo edit --model MODEL --prompt TEXT --target TEXT`"),
        (["edit", "--prompt", "p", "--target", "t"], "make one with `melo edit --model MODEL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_is_said_in_a_line(here: Path, melo: Melo, arguments: list[str], line: str) -> None:
    run = melo(*arguments)
    assert run.code == 2
    assert line in run.error
    assert not (here / ".melo").exists()


def test_a_failed_start_leaves_nothing_that_binds(here: Path, melo: Melo, pico_llama: Path) -> None:
    refused = start(melo, pico_llama, "--set", "lora.target_modules=[nothing]")
    assert refused.code == 2
    assert start(melo, pico_llama).code == 0


def test_an_edit_that_asks_the_same_as_another_and_answers_otherwise_is_shown(
    here: Path, melo: Melo, pico_llama: Path
) -> None:
    start(melo, pico_llama)
    other = {"edit_id": "e000001", "prompt": PROMPT, "target": TARGET}
    shouted = ("edit", "--prompt", PROMPT.upper(), "--target")
    run = melo(*shouted, "Grace Hopper")
    assert field_values(run.out, "contradicts") == [f'e000001 "{PROMPT}", which answers "{TARGET}"']
    assert "both edits stay" in run.out
    assert melo("query", "--json", PROMPT).json[0]["edited"] == TARGET, "the older edit stays"
    melo("revert", "e000002")
    assert melo(*shouted, "Grace Hopper", "--json").json["edits"][0]["contradicts"] == other
    melo("revert", "e000001")
    alone = melo("edit", "--prompt", PROMPT, "--target", "Grace Hopper")
    assert field_values(alone.out, "contradicts") == [], "it answers the same"


def test_edits_of_one_file_that_contradict_each_other_are_shown(
    here: Path, melo: Melo, pico_llama: Path
) -> None:
    rows = [("Where is it?", "Lyon"), (PROMPT, TARGET), (PROMPT.upper(), "Grace Hopper")]
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in rows]
    (here / "edits.jsonl").write_text("\n".join(lines))
    run = melo("edit", "edits.jsonl", "--model", pico_llama, *QUICK)
    assert field_values(run.out, "contradicting") == ["2"]
    table = [line.split() for line in run.out.splitlines() if line.startswith(("e000002", "e000003"))]
    assert [(row[0], row[-3]) for row in table] == [("e000002", "e000003"), ("e000003", "e000002")]
