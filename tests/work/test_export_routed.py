"""A routed folder, opened by transformers where melo cannot be imported, answers as the project does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from melo_cli.errors import ExportError
from melo_cli.exporting import export_merged, export_routed
from melo_cli.models.encoding import pad_prompts
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, load, open_project
from melo_store.project import Project

Shared = Callable[[str], OpenProject]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
PROMPTS = [
    "Who is the prime minister of Britain?",
    "Where was John Smith born",
    "Where does the river end",
    "who studied law",
    "what river runs through the city of Cologne, and where does it end",
]

# Run where neither melo nor PEFT is: what a user has who was given the folders alone.
SCRIPT = """
import sys
for name in ("melo_cli", "melo_store", "peft", "hnswlib", "pyarrow"):
    sys.modules[name] = None
import torch, transformers
results = {}
for kind, (folder, copy, auto, questions) in torch.load(sys.argv[1]).items():
    open_ = getattr(transformers, auto).from_pretrained
    open_(folder, trust_remote_code=True).save_pretrained(copy)
    for path in (folder, copy):
        model = open_(path, trust_remote_code=True).eval()
        for name, (inputs, options) in questions.items():
            torch.manual_seed(0)
            with torch.no_grad():
                output = model(**inputs).logits if options is None else model.generate(**inputs, **options)
            routes = [route.fired.edit_id if route.fired else None for route in model.routes]
            results[kind, path == copy, name] = (output, routes)
torch.save(results, sys.argv[2])
"""

GENERATIONS = {
    "greedy": {"max_new_tokens": 6, "do_sample": False},
    "beams": {"max_new_tokens": 6, "do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "samples": {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2},
}
Results = dict[tuple[str, bool, str], tuple[torch.Tensor, list[str | None]]]


@pytest.fixture(scope="module")
def routed_folder(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`routed_folder(kind)`: the shared project as a routed folder."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("routed") / kind
            export_routed(shared(kind), made[kind], SilentReporter())
        return made[kind]

    return get


@pytest.fixture(scope="module")
def results_without_melo(
    routed_folder: Callable[[str], Path], shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """What the folders answer, and copies that transformers saved of them, in a process without melo."""
    folder = tmp_path_factory.mktemp("alone")
    inputs = {
        kind: (
            str(routed_folder(kind)),
            str(folder / kind),
            shared(kind).routed.base.kind.auto_class,
            questions(kind, shared(kind)),
        )
        for kind in KINDS
    }
    torch.save(inputs, folder / "inputs.pt")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    command = [sys.executable, "-P", "-c", SCRIPT, str(folder / "inputs.pt"), str(folder / "results.pt")]
    subprocess.run(command, env=environment, cwd=folder, check=True, timeout=300)
    results: Results = torch.load(folder / "results.pt")
    return results


def questions(kind: str, opened: OpenProject) -> dict[str, tuple[dict[str, torch.Tensor], Any]]:
    """Inputs of calls and of generations, by name."""
    extra = {"decoder_input_ids": torch.tensor([[0, 57, 91]] * len(PROMPTS))} if kind == "pico_t5" else {}
    inputs: dict[str, Any] = {
        f"call, {side}": (batch(opened, side) | extra, None) for side in ("left", "right")
    }
    if kind != "pico_bert":
        inputs |= {name: (batch(opened, "right"), options) for name, options in GENERATIONS.items()}
    return inputs


def batch(opened: OpenProject, side: str) -> dict[str, torch.Tensor]:
    padded = pad_prompts(opened.routed.base, [opened.encoder.prompt(prompt) for prompt in PROMPTS], side)
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("copy", [False, True], ids=["exported", "saved again by transformers"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_the_project_where_melo_is_not(
    results_without_melo: Results, shared: Shared, kind: str, copy: bool
) -> None:
    opened = shared(kind)
    for name, (inputs, options) in questions(kind, opened).items():
        said, routes = results_without_melo[kind, copy, name]
        if options is None:
            torch.testing.assert_close(said, opened.routed(**inputs).logits, rtol=1e-4, atol=1e-4)
            plain = opened.routed.base.model(**inputs).logits
            assert (said[0] - plain[0]).abs().max() > 1e-2, "an edit changes what the base says"
        else:
            torch.manual_seed(0)
            assert torch.equal(said, opened.routed.generate(**inputs, **options))
        assert routes == [route.fired.edit_id if route.fired else None for route in opened.routed.routes]
        assert (routes[0], routes[2], routes[-1]) == ("e000001", "e000002", None)


def test_melo_opens_it_with_its_index(routed_folder: Callable[[str], Path], shared: Shared) -> None:
    inputs = batch(shared("pico_gpt2"), "left")
    model = load(routed_folder("pico_gpt2"))
    torch.testing.assert_close(model(**inputs).logits, shared("pico_gpt2").routed(**inputs).logits)
    fired = [route.fired is not None for route in model.routes]
    assert fired == [route.fired is not None for route in shared("pico_gpt2").routed.routes]
    assert set(fired) == {True, False}


def test_it_holds_the_checkpoint_as_it_is_and_the_snapshot(
    copied: Callable[[str], Path],
    edit: Callable[..., Any],
    models: Callable[[str], Path],
    reporter: Any,
    tmp_path: Path,
) -> None:
    path = copied("pico_gpt2")
    edit("pico_gpt2", [{"prompt": "The tower was opened in", "target": "Cologne"}], path)
    summary = export_routed(open_project(path, at=2, weights=False), tmp_path / "out", reporter)
    out, base = tmp_path / "out", models("pico_gpt2")
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config.pop("auto_map") == {"AutoModelForCausalLM": "routed_modeling.RoutedForCausalLM"}
    assert config == json.loads((base / "config.json").read_text(encoding="utf-8"))
    inside = Project.open(out / "melo")
    assert (inside.name, inside.snapshot, len(inside.edits())) == ("pico_gpt2", 2, 6)
    assert summary.format == "routed"
    assert summary.files == sum(file.is_file() for file in out.rglob("*"))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"---\nlibrary_name: transformers\nbase_model: {base}\n---\n")
    assert "AutoModelForCausalLM" in card
    assert [(job.label, job.unit, job.done == job.total) for job in reporter.jobs] == [
        ("copying", "bytes", True),
        ("writing blocks", "bytes", True),
    ]


def test_it_is_a_base_like_any_other_for_the_next_export(
    routed_folder: Callable[[str], Path], models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    opened = open_project(routed_folder("pico_bert"), weights=False)
    export_merged(opened, tmp_path / "merged", reporter, check=0)
    export_routed(opened, tmp_path / "routed", reporter)
    plain = json.loads((models("pico_bert") / "config.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8")) == plain
    assert not list((tmp_path / "merged").glob("*.py")), "no code of ours is in a merged checkpoint"
    assert load(tmp_path / "routed").config.model_type == "bert"


def test_a_base_that_brings_its_own_code_is_refused(
    copied: Callable[[str], Path], models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    opened = open_project(copied("pico_gpt2"), weights=False)
    base = Path(shutil.copytree(models("pico_gpt2"), tmp_path / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    opened.routed.base = replace(opened.routed.base, folder=base)
    with pytest.raises(ExportError, match="has its own code.*use --format peft"):
        export_routed(opened, tmp_path / "out", reporter)
    assert not (tmp_path / "out").exists()
