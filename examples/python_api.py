"""melo from Python: load, edit, query, generate, routes, revert, export.

    python examples/python_api.py                     a tiny random model, in seconds
    python examples/python_api.py path/or/hub-id      a real model; its scope is learned first, in minutes

Everything is written to a new folder, `--to` or a temporary one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import melo_cli
from melo_cli.datasets import EditRequest
from melo_cli.doctor.pico_model import write_pico_model
from melo_cli.editing import edit_first, edit_single
from melo_cli.exporting import export_routed
from melo_cli.recipe import Recipe, default_recipe, recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project
from melo_cli.runtime.querying import query
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

COMMAND = "examples/python_api.py"  # what the history says that made a snapshot
REPORTER = SilentReporter()
FIRST = EditRequest("Who leads the support team?", "Mara Lindqvist", subject="support team")
SECOND = EditRequest("In which year was the tower built?", "1889", subject="tower")
UNRELATED = "What is the capital of France?"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("model", nargs="?", help="folder or hub id of a causal model with safetensors")
    arguments.add_argument("--to", type=Path, help="an empty folder")
    given = arguments.parse_args()
    if given.to is not None:
        run(given.model, given.to)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(given.model, Path(folder))


def run(model: str | None, folder: Path) -> None:
    """The main ways, one after the other."""
    project = folder / "project"
    recipe = recipe_for(model, folder)
    edit(recipe, project)
    ask(project)
    generate(project)
    look_back(project)
    export(project, folder / "exported")
    revert(project)


def recipe_for(model: str | None, folder: Path) -> Recipe:
    """The default recipe of a model; for none, a tiny random model that is made on the spot."""
    if model is not None:
        return default_recipe(model)
    write_pico_model(folder / "model")
    return recipe_from_mapping(
        {
            "name": "example",
            "task": "custom",
            "model": {"name_or_path": str(folder / "model")},
            "routing": {"scope": "radius"},  # a random model knows no words to verify
            "key": {"radius": 0.05},
            "lora": {"rank": 4, "alpha": 8.0},
            "training": {"variants": 0, "max_steps": 60, "optimizer": {"name": "Adam", "lr": 0.02}},
        }
    )


def edit(recipe: Recipe, project: Path) -> None:
    """The first edit makes the project; the second goes to it."""
    for summary in (
        edit_first(recipe, FIRST, project, REPORTER, command=COMMAND),
        edit_single(SECOND, project, REPORTER, command=COMMAND),
    ):
        (outcome,) = summary.outcomes
        print(f"edit      {outcome.edit_id} {outcome.status}: {outcome.prompt} -> {outcome.answer}")


def ask(project: Path) -> None:
    """Route and both answers of each prompt."""
    for answer in query(open_project(project), [FIRST.prompt, UNRELATED]):
        fired = answer.route.fired
        print(f"query     {answer.prompt} -> {fired.edit_id if fired else 'base'}: {answer.edited!r}")


def generate(project: Path) -> None:
    """The interface of transformers, every prompt of a batch under its own route."""
    model = melo_cli.load(project)
    prompts = [FIRST.prompt, SECOND.prompt, UNRELATED]
    options = {"return_tensors": "pt", "padding": True}
    if model.base.template == "chat":
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        batch = model.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True, **options
        )
    else:
        batch = model.tokenizer(prompts, **options)
    batch = batch.to(model.device)
    answers = model.generate(**batch, max_new_tokens=16, do_sample=False)
    for answer, route in zip(answers[:, batch["input_ids"].shape[1] :], model.routes, strict=True):
        text = model.tokenizer.decode(answer, skip_special_tokens=True)
        print(f"generate  {route.fired.block if route.fired else 'base'}: {text!r}")


def look_back(project: Path) -> None:
    """The store is read without a model."""
    opened = Project.open(project)
    for info in opened.history():
        print(f"history   snapshot {info.number}: {info.action}")
    for view in opened.edits():
        print(f"history   {view.edit_id} is {view.status}: {view.prompt}")


def export(project: Path, folder: Path) -> None:
    """A folder that transformers opens without melo, and that routes as the project does."""
    export_routed(open_project(project), folder, REPORTER)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.generate(**tokenizer(FIRST.prompt, return_tensors="pt"), max_new_tokens=4)
    fired = model.routes[0].fired
    print(f"export    transformers alone: {FIRST.prompt} -> {fired.edit_id if fired else 'base'}")


def revert(project: Path) -> None:
    """Take the first edit back, in a new snapshot."""
    with open_writer(Project.open(project)) as writer:
        info = writer.revert(["e000001"], versions=library_versions(), command=COMMAND)
    (answer,) = query(open_project(project), [FIRST.prompt])
    same = "as" if answer.edited == answer.base else "unlike"
    print(f"revert    snapshot {info.number}: {FIRST.prompt} -> {answer.edited!r}, {same} the base answers")


if __name__ == "__main__":
    main()
