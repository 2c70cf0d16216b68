"""Artefacts that other tools load: PEFT alone, a router of a few lines of numpy, transformers alone."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from peft import PeftConfig, PeftModel
from safetensors.numpy import load_file
from torch import Tensor
from transformers import AutoTokenizer

from melo_cli.editing import EditSummary
from melo_cli.errors import ExportError, ProjectError
from melo_cli.exporting import ExportSummary, adapters, export_merged, export_peft, export_routed, folder
from melo_cli.exporting.folder import RECORD
from melo_cli.loading import OpenProject, open_project
from melo_cli.reporter import SilentReporter
from store.project import Project

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]
Floats = NDArray[np.floating[Any]]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
AUTO = {
    "pico_t5": transformers.AutoModelForSeq2SeqLM,
    "pico_gpt2": transformers.AutoModelForCausalLM,
    "pico_llama": transformers.AutoModelForCausalLM,
    "pico_bert": transformers.AutoModelForSequenceClassification,
}
OTHER_PROMPTS = [
    "Who is prime minister of Britain?",
    "Where does that river end",
    "He was born in Cologne",
    "law was studied by whom",
    "The court holds that the statute of 1934 does not apply",
]


@pytest.fixture(scope="module")
def peft_folder(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`peft_folder(kind)`: the shared project as PEFT adapters."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("peft") / kind
            export_peft(shared(kind), made[kind], SilentReporter())
        return made[kind]

    return get


def fresh(kind: str, path: Path) -> Any:
    """A model as transformers alone loads it."""
    return AUTO[kind].from_pretrained(path).eval()


def inputs_of(kind: str, tokenizer: Any, prompt: str) -> dict[str, Tensor]:
    inputs = dict(tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))
    if kind == "pico_t5":
        inputs["decoder_input_ids"] = torch.tensor([[0, 57, 91]])
    return inputs


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    found: Tensor = model(**inputs).logits
    return found


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


# PEFT


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_loaded_by_peft_alone_answers_as_the_routed_model(
    peft_folder: Callable[[str], Path], shared: Shared, models: Callable[[str], Path], kind: str
) -> None:
    opened, exported = shared(kind), peft_folder(kind)
    tokenizer = AutoTokenizer.from_pretrained(models(kind))
    live = [view for view in opened.project.edits() if view.status == "live"]
    assert {view.block for view in live} == {"b000001", "b000002"}
    plain = fresh(kind, models(kind))
    for block in opened.project.block_ids():
        alone = PeftModel.from_pretrained(fresh(kind, models(kind)), exported / "adapters" / block).eval()
        for view in live:
            if view.block != block:
                continue
            inputs = inputs_of(kind, tokenizer, view.prompt)
            ours, theirs = logits(opened.routed, inputs), logits(alone, inputs)
            assert opened.routed.routes[0].fired is not None
            assert (ours - theirs).abs().max() < 1e-4
            assert (logits(plain, inputs) - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_of_an_adapter_is_an_ordinary_one(
    peft_folder: Callable[[str], Path], shared: Shared, models: Callable[[str], Path], kind: str
) -> None:
    for block in ("b000001", "b000002"):
        path = peft_folder(kind) / "adapters" / block
        assert names(path) == {"adapter_config.json", "adapter_model.safetensors"}
        config = PeftConfig.from_pretrained(str(path))
        assert (config.peft_type, config.r, config.lora_alpha) == ("LORA", 4, 16)
        assert config.rank_pattern == config.alpha_pattern == {}
        assert config.modules_to_save is None
        assert config.base_model_name_or_path == str(models(kind))
        assert config.fan_in_fan_out == (kind == "pico_gpt2")
        assert set(config.target_modules) == set(shared(kind).recipe.lora.target_modules)
        assert not any("classifier" in name for name in load_file(path / "adapter_model.safetensors"))


def test_the_adapters_name_the_base_that_one_asks_for(shared: Shared, reporter: Any, tmp_path: Path) -> None:
    summary = export_peft(shared("pico_gpt2"), tmp_path / "out", reporter, base_name="openai-community/gpt2")
    configs = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("adapter_config.json")]
    assert [config["base_model_name_or_path"] for config in configs] == ["openai-community/gpt2"] * 2
    assert (summary.format, summary.folder, summary.blocks, summary.figures) == (
        "peft",
        tmp_path / "out",
        2,
        {},
    )
    assert summary.files == len(names(tmp_path / "out")) == 7
    assert summary.bytes == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    job = reporter.jobs[-1]
    assert (job.label, job.total, job.done, job.unit) == ("writing adapters", 2, 2, "blocks")


def key_by_transformers(kind: str, path: Path, table: dict[str, Any], prompts: list[str]) -> Floats:
    """Keys as `routes.json` describes them: here the mean of the input embeddings."""
    assert table["key"]["pooling"] == "mean"
    model, tokenizer = fresh(kind, path), AutoTokenizer.from_pretrained(path)
    embeddings = model.get_submodule(table["key"]["layer"]).weight.detach().numpy()
    return np.stack([embeddings[tokenizer(prompt).input_ids].mean(0) for prompt in prompts])


def route_by_numpy(table: dict[str, Any], arrays: dict[str, Floats], key: Floats) -> str | None:
    """The nearest neuron of the clusters that hold the key; a ten-thousandth of its length is rounding."""
    tolerance = 1e-4 * (1 + float(np.linalg.norm(key)))
    holding = {
        cluster["cluster"]
        for cluster, center in zip(table["clusters"], arrays["centers"], strict=True)
        if np.linalg.norm(key - center) <= cluster["radius"] + tolerance
    }
    distances = [
        float(np.linalg.norm(key - own)) if neuron["cluster"] in holding else np.inf
        for neuron, own in zip(table["neurons"], arrays["keys"], strict=True)
    ]
    nearest = int(np.argmin(distances))
    return str(table["neurons"][nearest]["adapter"]) if distances[nearest] < np.inf else None


@pytest.mark.parametrize("kind", KINDS)
def test_a_router_of_plain_numpy_names_the_adapter_that_the_project_does(
    peft_folder: Callable[[str], Path], shared: Shared, models: Callable[[str], Path], kind: str
) -> None:
    opened, router = shared(kind), peft_folder(kind) / "router"
    table = json.loads((router / "routes.json").read_text(encoding="utf-8"))
    arrays = load_file(router / "keys.safetensors")
    live = [view for view in opened.project.edits() if view.status == "live"]
    assert [(neuron["edit_id"], neuron["prompt"], neuron["adapter"]) for neuron in table["neurons"]] == [
        (view.edit_id, view.prompt, view.block) for view in live
    ]
    prompts = [view.prompt for view in opened.project.edits()] + OTHER_PROMPTS
    keys = key_by_transformers(kind, models(kind), table, prompts)
    assert arrays["keys"].dtype == arrays["centers"].dtype == np.float32
    routes = opened.asker.routes([opened.encoder.prompt(prompt) for prompt in prompts])
    expected = [route.fired.block if route.fired else None for route in routes]
    assert [route_by_numpy(table, arrays, key) for key in keys] == expected
    assert expected[6:] == ["b000001", "b000001", None, None, None]


def test_clusters_of_many_members_are_routed_by_their_rows(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    # Like questions with one answer; the first does not fire for the later ones: one cluster, two blocks.
    first = [
        {"prompt": "Where does the river end", "target": "Paris"},
        {"prompt": "Which court was it", "target": "John"},
    ]
    later = [{"prompt": f"Where does the river end{end}", "target": "Paris"} for end in ("?", " and")]
    later.append({"prompt": "Which court was it", "target": "Smith"})
    path = edit("pico_gpt2", first, tmp_path / "p", key={"radius": 0.01}).path
    edit("pico_gpt2", later, path, key={"radius": 0.3})
    opened = open_project(path)
    views = opened.project.edits()
    assert [view.status for view in views] == ["live", "superseded", "live", "live", "live"]
    assert [cluster.members for cluster in opened.project.clusters()] == [(1, 3, 4), (5,)]
    export_peft(opened, tmp_path / "out", reporter)
    table = json.loads((tmp_path / "out" / "router" / "routes.json").read_text(encoding="utf-8"))
    arrays = load_file(tmp_path / "out" / "router" / "keys.safetensors")
    assert {neuron["edit_id"] for neuron in table["neurons"]} == {
        v.edit_id for v in views if v.status == "live"
    }
    prompts = [view.prompt for view in views] + OTHER_PROMPTS
    prompts += ["Where does the river end of", "Where does a river end", "Where does the river end? and"]
    keys = key_by_transformers("pico_gpt2", models("pico_gpt2"), table, prompts)
    routes = opened.asker.routes([opened.encoder.prompt(prompt) for prompt in prompts])
    expected = [route.fired.block if route.fired else None for route in routes]
    assert [route_by_numpy(table, arrays, key) for key in keys] == expected
    assert set(expected) == {"b000001", "b000002", None}


def test_a_project_without_neurons_exports_an_empty_router(edit: Edit, reporter: Any, tmp_path: Path) -> None:
    path = edit("pico_bert", [{"prompt": "who studied law", "target": "criminal"}], tmp_path / "p").path
    assert export_peft(open_project(path), tmp_path / "out", reporter).blocks == 0
    table = json.loads((tmp_path / "out" / "router" / "routes.json").read_text(encoding="utf-8"))
    assert (table["clusters"], table["neurons"]) == ([], [])
    assert load_file(tmp_path / "out" / "router" / "keys.safetensors")["keys"].shape[0] == 0


# Routed


def test_a_routed_folder_holds_the_checkpoint_as_it_is_and_the_snapshot(
    copied: Callable[[str], Path], edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    path = copied("pico_gpt2")
    edit("pico_gpt2", [{"prompt": "The tower was opened in", "target": "Cologne"}], path)
    summary = export_routed(open_project(path, at=2), tmp_path / "out", reporter)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (models("pico_gpt2") / name).read_bytes()
    inside = Project.open(tmp_path / "out" / "melo")
    assert (inside.name, inside.snapshot, len(inside.edits())) == ("pico_gpt2", 2, 6)
    assert summary.format == "routed"
    assert summary.files == len(names(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"---\nlibrary_name: transformers\nbase_model: {models('pico_gpt2')}\n---\n")
    assert "melo_cli.load" in card
    job = reporter.jobs[-1]
    assert (job.label, job.unit, job.done) == ("copying", "bytes", job.total)


# Merged


@pytest.fixture(scope="module")
def merged(
    summaries: Callable[[str], EditSummary], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportSummary]:
    """`merged(kind)`: the shared project merged, from a project opened for it alone."""
    made: dict[str, ExportSummary] = {}

    def get(kind: str) -> ExportSummary:
        if kind not in made:
            path = tmp_path_factory.mktemp("merged") / kind
            made[kind] = export_merged(open_project(summaries(kind).path), path, SilentReporter())
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_checkpoint_is_the_base_plus_the_sum_of_its_blocks(
    merged: Callable[[str], ExportSummary],
    peft_folder: Callable[[str], Path],
    models: Callable[[str], Path],
    kind: str,
) -> None:
    folder = merged(kind).folder
    ours, tokenizer = fresh(kind, folder), AutoTokenizer.from_pretrained(folder)
    theirs = PeftModel.from_pretrained(
        fresh(kind, models(kind)), peft_folder(kind) / "adapters" / "b000001", adapter_name="b000001"
    )
    theirs.load_adapter(peft_folder(kind) / "adapters" / "b000002", adapter_name="b000002")
    theirs.add_weighted_adapter(["b000001", "b000002"], [1.0, 1.0], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    plain = fresh(kind, models(kind))
    for prompt in OTHER_PROMPTS:
        inputs = inputs_of(kind, tokenizer, prompt)
        found = logits(ours, inputs)
        torch.testing.assert_close(found, logits(theirs.eval(), inputs), rtol=1e-3, atol=1e-3)
        assert (found - logits(plain, inputs)).abs().max() > 1e-2
    kept = plain.state_dict().keys() == ours.state_dict().keys()
    assert kept, "a merged checkpoint has the base's weights and no others"


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_bert"])
def test_the_card_of_a_merged_checkpoint_holds_the_figures_returned(
    merged: Callable[[str], ExportSummary], kind: str
) -> None:
    summary = merged(kind)
    assert (summary.format, summary.blocks) == ("merged", 2)
    assert list(summary.figures) == ["base", "routed", "merged"]
    card = (summary.folder / "README.md").read_text(encoding="utf-8")
    lines = {line.split("|")[1].strip(): line for line in card.splitlines() if line.startswith("|")}
    for metric, label in {
        "edit_success": "edits answered as asked",
        "generality": "rephrases answered as asked",
        "locality_truth": "unrelated prompts answered right",
        "locality_agreement": "unrelated prompts answered as the base does",
    }.items():
        cells = [cell.strip() for cell in lines[label].split("|")[2:-1]]
        for side, cell in zip(summary.figures.values(), cells, strict=True):
            figure = side[metric]
            if figure is None:
                assert cell == ""
                continue
            low, high = figure["ci95"]
            assert cell == f"{figure['generation']:.3f} ({low:.3f} to {high:.3f}, n = {figure['n']})"
    if kind == "pico_gpt2":
        cells = [cell.strip() for cell in lines["perplexity of the edits' targets"].split("|")[2:-1]]
        assert cells == [f"{side['perplexity_edits']:.2f}" for side in summary.figures.values()]


@pytest.mark.parametrize("kind", ["pico_t5", "pico_bert"])
def test_the_figures_of_a_merge_are_those_of_the_checkpoint_written(
    merged: Callable[[str], ExportSummary], shared: Shared, kind: str
) -> None:
    summary = merged(kind)
    model, tokenizer = fresh(kind, summary.folder), AutoTokenizer.from_pretrained(summary.folder)
    right = 0
    for view in shared(kind).project.edits():
        inputs = tokenizer(view.prompt, return_tensors="pt", return_token_type_ids=False)
        if kind == "pico_bert":
            answer = model.config.id2label[int(logits(model, inputs).argmax())]
        else:
            output = model.generate(**inputs, max_new_tokens=len(tokenizer(view.target).input_ids) + 2)
            answer = tokenizer.decode(output[0], skip_special_tokens=True).strip()
        right += answer == view.target
    assert summary.figures["merged"]["edit_success"]["generation"] == pytest.approx(right / 6)
    assert summary.figures["routed"]["edit_success"]["generation"] == 1.0
    assert summary.figures["merged"] != summary.figures["routed"]


def test_a_block_that_answers_nothing_any_more_is_not_merged(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    prompt = "who studied law"
    data = [{"prompt": prompt, "target": target} for target in ("London", "Paris")]
    opened = open_project(edit("pico_gpt2", data, tmp_path / "p").path)
    assert [view.status for view in opened.project.edits()] == ["superseded", "live"]
    slices = opened.project.block("b000002").slices
    export_merged(opened, tmp_path / "out", reporter)
    base, ours = fresh("pico_gpt2", models("pico_gpt2")), fresh("pico_gpt2", tmp_path / "out")
    for module, piece in slices.items():
        change = torch.from_numpy(piece.scale * (piece.B @ piece.A)).T
        weight = base.get_submodule(module).weight + change
        torch.testing.assert_close(ours.get_submodule(module).weight, weight, rtol=1e-4, atol=1e-5)


def test_a_project_without_edits_cannot_be_merged(edit: Edit, reporter: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "who studied law", "target": "criminal"}]
    path = edit("pico_bert", rows, tmp_path / "p", should_stop=lambda: True).path
    with pytest.raises(ProjectError, match="no live edit"):
        export_merged(open_project(path), tmp_path / "out", reporter)
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


# Folders


def export(kind: str, opened: OpenProject, target: Path, reporter: Any, *, overwrite: bool = False) -> None:
    call = {"peft": export_peft, "routed": export_routed, "merged": export_merged}[kind]
    call(opened, target, reporter, overwrite=overwrite)


@pytest.fixture
def own(summaries: Callable[[str], EditSummary]) -> OpenProject:
    """The BERT project, opened anew: a merge changes what it is given."""
    return open_project(summaries("pico_bert").path)


@pytest.mark.parametrize("format_name", ["peft", "routed", "merged"])
def test_an_existing_folder_is_kept_unless_told_otherwise(
    own: OpenProject, reporter: Any, tmp_path: Path, format_name: str
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept", encoding="utf-8")
    (target / RECORD).write_text("{}", encoding="utf-8")
    with pytest.raises(
        ExportError, match="it exists already; choose another folder or add --overwrite"
    ) as caught:
        export(format_name, own, target, reporter)
    assert caught.value.where == str(target)
    assert names(target) == {"mine.txt", RECORD}
    export(format_name, own, target, reporter, overwrite=True)
    assert "mine.txt" not in names(target)
    assert names(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_melo_did_not_write_is_never_replaced(
    own: OpenProject, reporter: Any, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ExportError, match="it is no folder that melo exported, and is not overwritten"):
        export_peft(own, tmp_path / "photos", reporter, overwrite=True)
    assert names(tmp_path / "photos") == {"mine.txt"}


def test_folders_above_are_made(own: OpenProject, reporter: Any, tmp_path: Path) -> None:
    export_peft(own, tmp_path / "a" / "b" / "out", reporter)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_half_way_leaves_what_was_there_and_nothing_else(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    target = tmp_path / "out"
    if overwrite:
        target.mkdir()
        (target / "mine.txt").write_text("kept", encoding="utf-8")
        (target / RECORD).write_text("{}", encoding="utf-8")
    written = []
    inner = adapters.save_file

    def fail_at_the_second(*args: Any, **options: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(args)
        inner(*args, **options)

    monkeypatch.setattr(adapters, "save_file", fail_at_the_second)
    with pytest.raises(ExportError, match=r"it cannot be written \(No space left on device\)") as caught:
        export_peft(own, target, reporter, overwrite=overwrite)
    assert caught.value.where == str(target)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if overwrite else [])
    assert not overwrite or names(target) == {"mine.txt", RECORD}


def test_an_interruption_leaves_nothing_behind(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapters, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_peft(own, tmp_path / "out", reporter)
    assert list(tmp_path.iterdir()) == []


def test_a_last_rename_that_fails_gives_the_old_folder_back(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept", encoding="utf-8")
    (target / RECORD).write_text("{}", encoding="utf-8")
    inner = Path.rename

    def refuse_the_new(self: Path, to: Path) -> Path:
        if (self / "adapters").is_dir():
            raise OSError(errno.EBUSY, "Device or resource busy")
        return inner(self, to)

    monkeypatch.setattr(folder.Path, "rename", refuse_the_new)
    with pytest.raises(ExportError, match="Device or resource busy"):
        export_peft(own, target, reporter, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert names(target) == {"mine.txt", RECORD}


def test_a_folder_that_cannot_be_made_is_one_line(own: OpenProject, reporter: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ExportError, match="it cannot be written") as caught:
        export_peft(own, tmp_path / "file" / "out", reporter)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_overwriting_the_project_itself_or_its_base_is_refused(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(models("pico_bert"), tmp_path / "base"))
    rows = [{"prompt": "who studied law", "target": "tax"}]
    path = edit("pico_bert", rows, tmp_path / "p", model={"name_or_path": str(base)}).path
    for target in (path, base, tmp_path):
        with pytest.raises(ExportError):
            export_peft(open_project(path), target, reporter, overwrite=True)
    assert Project.open(path).snapshot == 1
    assert names(base) == names(models("pico_bert"))
