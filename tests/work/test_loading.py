"""Finding the edits again: in a new process, in another folder, at an older snapshot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import melo_cli
from melo_cli.editing import EditSummary
from melo_cli.errors import BaseMismatchError, ModelError, ProjectNotFoundError, UnknownEditError
from melo_cli.exporting import export_routed
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_cli.runtime.routed_model import RoutedModel

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]
Rows = dict[str, list[dict[str, Any]]]
Asked = list[tuple[str, str | None]]
ROOT = Path(__file__).parents[2]
PROMPTS = [
    "Who is the prime minister of Britain?",
    "Who is prime minister of Britain?",
    "He was born in Cologne",
    "What is the name of the river",
]
# Reads the project's path and the prompts, and prints answer and edit of each.
ASK = """
import json, sys
import melo_cli
path, prompts = json.loads(sys.stdin.read())
model = melo_cli.load(path)
inputs = model.tokenizer(prompts, return_tensors="pt", padding=True)
output = model.generate(inputs.input_ids, inputs.attention_mask, max_new_tokens=8, do_sample=False)
texts = model.tokenizer.batch_decode(output, skip_special_tokens=True)
fired = [route.fired.edit_id if route.fired else None for route in model.routes]
print(json.dumps(list(zip(texts, fired))))
"""


def asked(model: RoutedModel, prompts: list[str] = PROMPTS) -> Asked:
    """Text and edit of each prompt, by transformers' own interface."""
    inputs = model.tokenizer(prompts, return_tensors="pt", padding=True)
    ids, mask = inputs.input_ids, inputs.attention_mask
    if model.config.model_type == "bert":
        texts = [model.config.id2label[int(row.argmax())] for row in model(ids, mask).logits]
    else:
        output = model.generate(ids, mask, max_new_tokens=8, do_sample=False)
        texts = model.tokenizer.batch_decode(output, skip_special_tokens=True)
    fired = [route.fired.edit_id if route.fired else None for route in model.routes]
    return list(zip(texts, fired, strict=True))


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_llama", "pico_bert"])
def test_a_loaded_model_answers_and_routes_as_the_project_does(
    summaries: Callable[[str], EditSummary], shared: Shared, kind: str
) -> None:
    loaded = asked(melo_cli.load(summaries(kind).path))
    answers = query(shared(kind), PROMPTS, max_new_tokens=8)
    for prompt, (text, edit), answer in zip(PROMPTS, loaded, answers, strict=True):
        assert edit == (answer.route.fired.edit_id if answer.route.fired else None)
        written = text.removeprefix(prompt) if kind in ("pico_gpt2", "pico_llama") else text
        assert written.strip() == answer.edited
    last = None if kind == "pico_bert" else "e000006"  # right already there: no neuron
    assert [edit for _, edit in loaded] == ["e000001", "e000001", None, last]


def test_a_new_process_finds_the_same_answers_and_routes(
    summaries: Callable[[str], EditSummary], shared: Shared, tmp_path: Path
) -> None:
    path = summaries("pico_t5").path
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps([str(path), PROMPTS]),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    loaded = [tuple(row) for row in json.loads(done.stdout)]
    assert loaded == asked(shared("pico_t5").routed)
    assert loaded[0] == ("London", "e000001")
    assert loaded[3] == ("1934", "e000006")


def test_tokens_as_the_tokenizer_gives_them_can_be_generated_from(shared: Shared) -> None:
    model = shared("pico_t5").routed
    prompt = model.tokenizer(PROMPTS[0], return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**prompt, max_new_tokens=8)
    assert model.tokenizer.decode(output[0], skip_special_tokens=True) == "London"


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2"])
def test_the_call_is_routed_too(shared: Shared, kind: str) -> None:
    model = shared(kind).routed
    inputs = model.tokenizer(PROMPTS[0], return_tensors="pt")
    extra = {"decoder_input_ids": torch.zeros((1, 1), dtype=torch.long)} if kind == "pico_t5" else {}
    with torch.no_grad():
        logits = model(inputs.input_ids, inputs.attention_mask, **extra).logits[0, -1]
    assert model.routes[0].fired is not None
    first = shared(kind).encoder.edit(PROMPTS[0], "London").target_ids[0]
    assert int(logits.argmax()) == first


def test_an_older_snapshot_answers_as_it_did_then(copied: Callable[[str], Path], edit: Edit) -> None:
    path = copied("pico_gpt2")
    edit("pico_gpt2", [{"prompt": PROMPTS[0], "target": "Smith"}], path)
    expected = {1: ("London", None), 2: ("London", "e000006"), 3: ("Smith", "e000006")}
    for at, (first, last) in expected.items():
        results = query(open_project(path, at=at), PROMPTS, max_new_tokens=8)
        assert results[0].edited == first
        assert (results[3].route.fired.edit_id if results[3].route.fired else None) == last
    empty = query(open_project(path, at=0), PROMPTS, max_new_tokens=8)
    assert all(row.route.nearest is None and row.edited == row.base for row in empty)
    with pytest.raises(UnknownEditError):
        open_project(path, at=4)


def test_a_project_may_move(shared: Shared, copied: Callable[[str], Path], tmp_path: Path) -> None:
    moved = copied("pico_gpt2").rename(tmp_path / "elsewhere")
    assert asked(melo_cli.load(moved)) == asked(shared("pico_gpt2").routed)
    assert asked(melo_cli.load(str(moved))) == asked(shared("pico_gpt2").routed)


@pytest.fixture
def moved(
    edit: Edit, rows: Rows, models: Callable[[str], Path], tmp_path: Path
) -> Callable[[str], tuple[Path, Path]]:
    """A project of one edit, on a base that has moved since: the project and where the base is now."""

    def make(kind: str) -> tuple[Path, Path]:
        before = shutil.copytree(models(kind), tmp_path / "base-before")
        path = edit(kind, rows[kind][:1], tmp_path / "p", model={"name_or_path": str(before)}).path
        return path, Path(before).rename(tmp_path / "base-now")

    return make


def test_a_base_that_moved_is_found_by_base(moved: Callable[[str], tuple[Path, Path]]) -> None:
    path, base = moved("pico_gpt2")
    with pytest.raises(ModelError, match="base-before: the base model .* is no longer there; .* with --base"):
        melo_cli.load(path)
    answers = asked(melo_cli.load(path, base=str(base)))
    assert answers[0] == (f"{PROMPTS[0]} London", "e000001")


def test_a_base_that_moved_keeps_the_tokenizer_of_the_recipe(
    edit: Edit, rows: Rows, models: Callable[[str], Path], shared: Shared, tmp_path: Path
) -> None:
    # As published classifiers do: the checkpoint has no tokenizer, the recipe names another's.
    bare = shutil.copytree(
        models("pico_bert"), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*")
    )
    named = {"name_or_path": str(bare), "tokenizer": str(models("pico_bert"))}
    path = edit("pico_bert", rows["pico_bert"], tmp_path / "p", model=named).path
    assert asked(melo_cli.load(path)) == asked(shared("pico_bert").routed)
    now = Path(bare).rename(tmp_path / "bare-now")
    assert asked(melo_cli.load(path, base=str(now))) == asked(shared("pico_bert").routed)


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_bert"])
def test_a_base_without_a_tokenizer_is_refused(
    edit: Edit, rows: Rows, models: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    # transformers makes up an empty one, to which all prompts are alike.
    bare = shutil.copytree(models(kind), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelError, match="tokenizer"):
        edit(kind, rows[kind], tmp_path / "p", model={"name_or_path": str(bare)})


def test_relative_paths_in_a_recipe_hold_from_another_folder(
    edit: Edit,
    rows: Rows,
    models: Callable[[str], Path],
    shared: Shared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(models("pico_bert"), tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    named = {"name_or_path": "./model", "tokenizer": "./model"}
    edit("pico_bert", rows["pico_bert"], tmp_path / "p", model=named)
    monkeypatch.chdir(tmp_path)
    assert asked(melo_cli.load(tmp_path / "p")) == asked(shared("pico_bert").routed)


def test_another_base_is_refused(
    copied: Callable[[str], Path], models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(models("pico_gpt2"), tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    path = copied("pico_gpt2")
    with pytest.raises(BaseMismatchError, match="differs in weights; use the base model"):
        melo_cli.load(path, base=str(folder))
    with pytest.raises(ModelError, match="task hallucination needs a decoder-only language model"):
        melo_cli.load(path, base=str(models("pico_t5")))


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_llama", "pico_bert"])
def test_an_exported_folder_needs_neither_project_nor_base(
    moved: Callable[[str], tuple[Path, Path]], reporter: Any, tmp_path: Path, kind: str
) -> None:
    path, base = moved(kind)
    opened = open_project(path, base=str(base))
    before = asked(opened.routed)
    assert [edit for _, edit in before] == ["e000001", "e000001", None, None]
    export_routed(opened, tmp_path / "exported", reporter)
    shutil.rmtree(path)
    shutil.rmtree(base)
    exported = (tmp_path / "exported").rename(tmp_path / "sent-away")
    assert asked(melo_cli.load(exported)) == before


def test_an_exported_folder_brings_the_tokenizer_that_the_recipe_names(
    edit: Edit, rows: Rows, models: Callable[[str], Path], shared: Shared, reporter: Any, tmp_path: Path
) -> None:
    bare = shutil.copytree(
        models("pico_bert"), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*")
    )
    named = {"name_or_path": str(bare), "tokenizer": str(models("pico_bert"))}
    path = edit("pico_bert", rows["pico_bert"], tmp_path / "p", model=named).path
    export_routed(open_project(path), tmp_path / "exported", reporter)
    shutil.rmtree(path)
    shutil.rmtree(bare)
    assert asked(melo_cli.load(tmp_path / "exported")) == asked(shared("pico_bert").routed)


def test_where_there_is_no_project_loading_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFoundError):
        melo_cli.load(tmp_path / "nothing")
