"""A merged checkpoint, loaded by transformers alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefacts import OTHER_PROMPTS, fresh, inputs_of, logits
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from melo_cli.editing import EditSummary
from melo_cli.errors import ArtefactError, ExportError, ProjectError
from melo_cli.exporting import ExportSummary, Floors, export_merged
from melo_cli.exporting.merging.methods import Compile, Sum, auto
from melo_cli.exporting.merging.methods import distill as distilling
from melo_cli.exporting.merging.methods.auto import kept
from melo_cli.exporting.merging.methods.distill import Differences, Distill, distill, share_kept
from melo_cli.exporting.merging.methods.sum import SumOfBlocks
from melo_cli.exporting.merging.retention import load_checkpoint
from melo_cli.exporting.merging.training_examples import (
    ExampleSettings,
    TrainingExample,
    make_training_examples,
)
from melo_cli.models.encoding import IGNORED
from melo_cli.reporter import Progress, SilentReporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.scoring import target_batch, target_logits

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]
Floats = NDArray[np.floating[Any]]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
UNRELATED = [
    "The capital of that city was opened in 1934",
    "John studied the statute of Cologne",
    "what does the court not apply",
    "a passage about the tower of Smith",
    "in which city was law built and by whom",
    "the prime river of 1889",
    "He holds that Paris is the name",
    "was the minister born through the year",
    "does a petitioner apply in Britain",
    "who runs a wikipedia city",
]


def merged_by_sum(opened: OpenProject) -> Any:
    """The base with every live block added to its weights, in memory."""
    model = load_checkpoint(opened, opened.routed.base.folder).float()
    blocks = SumOfBlocks(opened)
    for name in blocks.parameters:
        model.get_parameter(name).data += blocks.of(name)
    return model


def written(model: Any, tokenizer: Any, prompt: str) -> str:
    """A model's greedy answer, by transformers alone."""
    inputs = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0]
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def share_answered(opened: OpenProject, model: Any, training_examples: Sequence[TrainingExample]) -> float:
    """The share of training examples that a model answers with their targets."""
    return share_kept(replace(opened.routed.base, model=model), training_examples)


@torch.no_grad()
def divergence(opened: OpenProject, model: Any, training_examples: Sequence[TrainingExample]) -> float:
    """Mean over answer tokens of `KL(routed || model)`, nats."""
    batch = target_batch(opened.routed.base, [example.encoded for example in training_examples])
    with opened.routed.using([example.block for example in training_examples]):
        wanted = target_logits(opened.routed.base, batch)
    given = target_logits(replace(opened.routed.base, model=model), batch)
    known = batch.targets != IGNORED
    return float(
        kl_div(
            given[known].log_softmax(-1),
            wanted[known].log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
    )


@pytest.fixture(scope="module")
def merged(
    summaries: Callable[[str], EditSummary], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportSummary]:
    """`merged(kind)`: the shared project merged, from a project opened for it alone."""
    made: dict[str, ExportSummary] = {}

    def get(kind: str) -> ExportSummary:
        if kind not in made:
            path = tmp_path_factory.mktemp("merged") / kind
            opened = open_project(summaries(kind).path)
            made[kind] = export_merged(opened, path, SilentReporter(), fresh_process=False)
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
        merged_logits = logits(ours, inputs)
        torch.testing.assert_close(merged_logits, logits(theirs.eval(), inputs), rtol=1e-3, atol=1e-3)
        assert (merged_logits - logits(plain, inputs)).abs().max() > 1e-2
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
        "hard_agreement": "prompts that read like edits answered as the base does",
    }.items():
        if all(side[metric] is None for side in summary.figures.values()):
            assert label not in lines
            continue
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
    export_merged(opened, tmp_path / "out", reporter, check=0)
    base, ours = fresh("pico_gpt2", models("pico_gpt2")), fresh("pico_gpt2", tmp_path / "out")
    for module, piece in slices.items():
        A, B = (torch.from_numpy(side.astype(np.float32)) for side in (piece.A, piece.B))
        change = (piece.scale * (B @ A)).T
        weight = base.get_submodule(module).weight + change
        torch.testing.assert_close(ours.get_submodule(module).weight, weight, rtol=1e-4, atol=1e-5)


def test_a_project_without_edits_cannot_be_merged(edit: Edit, reporter: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "who studied law", "target": "criminal"}]
    path = edit("pico_bert", rows, tmp_path / "p", should_stop=lambda: True).path
    with pytest.raises(ProjectError, match="no live edit"):
        export_merged(open_project(path), tmp_path / "out", reporter)
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


# What a dense model learns of the router


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_bert"])
def test_distillation_brings_all_weights_nearer_to_the_routed_model(
    summaries: Callable[[str], EditSummary], kind: str
) -> None:
    opened = open_project(summaries(kind).path)
    training_examples = make_training_examples(
        opened, ExampleSettings(tuple(UNRELATED), phrasings=2, unchanged=8), SilentReporter()
    )
    plain = load_checkpoint(opened, opened.routed.base.folder)
    student = load_checkpoint(opened, opened.routed.base.folder).float()
    names = [name for name, _ in student.named_parameters()]
    changes = Differences(student, names)
    how: dict[str, Any] = {"steps": 30, "lr": 5e-3, "enough": 2.0, "seed": 0}
    distill(opened, student, training_examples, names, **how, reporter=SilentReporter())
    assert (
        share_answered(opened, student, training_examples.prompts)
        == 1.0
        > share_answered(opened, plain, training_examples.prompts)
    )
    summed = merged_by_sum(opened)
    assert divergence(opened, student, training_examples.others) < 0.7 * divergence(
        opened, summed, training_examples.others
    )
    assert set(changes.parameters) == set(names)
    for name in names:
        moved = plain.get_parameter(name) + changes.of(name)
        torch.testing.assert_close(moved, student.get_parameter(name))
        assert not torch.equal(moved, plain.get_parameter(name)) or "word_embeddings" in name


def test_a_distilled_checkpoint_answers_its_edits_by_transformers_alone(
    summaries: Callable[[str], EditSummary],
    reporter: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distilling, "_ROWS", (6, 8, 4, 4))  # small steps are enough for few edits
    opened = open_project(summaries("pico_t5").path)
    how: dict[str, Any] = {
        "methods": [Distill(steps=100, lr=1e-2)],
        "examples": ExampleSettings(tuple(UNRELATED), phrasings=2, unchanged=8),
    }
    summary = export_merged(
        opened, tmp_path / "out", reporter, **how, dtype=torch.float32, fresh_process=False
    )
    assert summary.method == "distill"
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    answers = [written(model, tokenizer, edit.prompt) for edit in opened.project.edits()]
    assert answers == [edit.target for edit in opened.project.edits()]
    assert summary.figures["merged"]["edit_success"]["generation"] == 1.0


@pytest.mark.parametrize(("enough", "steps"), [(0.0, 25), (2.0, 40)])
def test_distillation_ends_early_once_enough_is_kept(
    summaries: Callable[[str], EditSummary], enough: float, steps: int
) -> None:
    class Counting(SilentReporter):
        counted = 0

        def advance(self, steps: int = 1, **_: float) -> None:
            self.counted += steps

        @contextmanager
        def progress(self, *_: object) -> Iterator[Progress]:
            yield self

    opened = open_project(summaries("pico_bert").path)
    training_examples = make_training_examples(
        opened, ExampleSettings(tuple(UNRELATED), phrasings=2, unchanged=8), SilentReporter()
    )
    student = load_checkpoint(opened, opened.routed.base.folder).float()
    names = [name for name, _ in student.named_parameters()]
    reporter = Counting()
    distill(
        opened, student, training_examples, names, steps=40, lr=1e-3, enough=enough, seed=0, reporter=reporter
    )
    assert reporter.counted == steps


@pytest.mark.parametrize("missing", ["edit_success", "generality", "locality_agreement", "hard_agreement"])
def test_the_retention_of_a_merge_is_its_lowest_figure(missing: str) -> None:
    every = ("edit_success", "generality", "locality_agreement", "hard_agreement")
    routed = {metric: {"generation": 0.8} for metric in every}
    merged = {metric: {"generation": 0.2 if metric == missing else 0.8} for metric in every}
    least = 0.25 if missing in every[:2] else 0.2
    assert kept({"routed": routed, "merged": merged}) == pytest.approx(least)
    assert kept({"routed": routed, "merged": {**merged, missing: None}}) == pytest.approx(0.8)


@pytest.mark.parametrize("enough", [0.0, 2.0])
def test_auto_takes_the_cheapest_of_those_that_keep_most(
    summaries: Callable[[str], EditSummary],
    reporter: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    enough: float,
) -> None:
    monkeypatch.setattr(auto, "_ENOUGH", enough)
    opened = open_project(summaries("pico_bert").path)
    how: dict[str, Any] = {
        "methods": [Sum(), Compile(), Distill(steps=5)],
        "examples": ExampleSettings(tuple(UNRELATED), phrasings=2, unchanged=8),
    }
    summary = export_merged(opened, tmp_path / "out", reporter, **how, fresh_process=False)
    lines = [info for info in reporter.infos if " keeps " in info]
    shares = {line.partition(":")[0]: float(line.split()[2].rstrip(",")) for line in lines}
    assert list(shares) == (["sum"] if enough == 0.0 else ["sum", "distill"])
    best = max(shares.values())
    assert summary.method == next(method for method, share in shares.items() if share >= best - 0.01)
    assert kept(summary.figures) == pytest.approx(shares[summary.method], abs=1e-3)
    # The same prompts chose the method: the model card says so.
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert ("Chosen among 2 ways" in card) == (enough != 0.0)


def test_a_merge_below_a_floor_is_not_put_in_place(
    summaries: Callable[[str], EditSummary], reporter: Any, tmp_path: Path
) -> None:
    opened = open_project(summaries("pico_t5").path)
    with pytest.raises(ArtefactError, match="edit success of the merged model is .* below 1;") as caught:
        export_merged(
            opened,
            tmp_path / "out",
            reporter,
            floors=Floors(edit_success=1.0, agreement=None),
            fresh_process=False,
        )
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


# How it is written


def test_shards_are_written_one_by_one_without_loading_the_base(
    models: Callable[[str], Path], edit: Edit, reporter: Any, tmp_path: Path
) -> None:
    fresh("pico_llama", models("pico_llama")).save_pretrained(tmp_path / "base", max_shard_size="30KB")
    AutoTokenizer.from_pretrained(models("pico_llama")).save_pretrained(tmp_path / "base")
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_llama", rows, tmp_path / "p", model={"name_or_path": str(tmp_path / "base")}).path
    opened = open_project(path, weights=False)
    assert not opened.routed.base.has_weights
    export_merged(opened, tmp_path / "out", reporter, check=0, dtype=torch.bfloat16)
    shards = sorted(file.name for file in (tmp_path / "out").glob("model-*.safetensors"))
    assert shards == sorted(file.name for file in (tmp_path / "base").glob("model-*.safetensors"))
    assert len(shards) > 1
    model, summed = fresh("pico_llama", tmp_path / "out"), merged_by_sum(open_project(path))
    assert model.dtype == torch.bfloat16
    for name, weight in summed.named_parameters():
        assert torch.equal(model.get_parameter(name), weight.to(torch.bfloat16)), f"{name} is cast once"
    job = next(job for job in reporter.jobs if job.label == "writing")
    assert (job.unit, job.done) == ("bytes", job.total)


def test_a_checkpoint_saved_without_the_models_outer_name_is_merged_too(
    models: Callable[[str], Path], edit: Edit, reporter: Any, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(models("pico_gpt2"), tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    short = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    save_file(short, base / "model.safetensors", metadata={"format": "pt"})
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_gpt2", rows, tmp_path / "p", model={"name_or_path": str(base)}).path
    export_merged(open_project(path, weights=False), tmp_path / "out", reporter, check=0)
    summed = merged_by_sum(open_project(path))
    model = fresh("pico_gpt2", tmp_path / "out")
    for name, weight in summed.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), weight)


def test_a_quantized_base_is_refused_with_the_remedy(
    summaries: Callable[[str], EditSummary], models: Callable[[str], Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(models("pico_bert"), tmp_path / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    opened = open_project(summaries("pico_bert").path, weights=False)
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    routed = opened.routed
    routed.base = replace(routed.base, folder=base)
    with pytest.raises(
        ExportError, match=r"quantized \(bitsandbytes\).*use --format peft or --format routed"
    ):
        export_merged(opened, tmp_path / "out", SilentReporter())
    assert not (tmp_path / "out").exists()
