"""A merged checkpoint, loaded by transformers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import AutoTokenizer

from melo_cli.editing import EditSummary
from melo_cli.errors import ProjectError
from melo_cli.exporting import ExportSummary, export_merged, export_peft
from melo_cli.loading import OpenProject, open_project
from melo_cli.reporter import SilentReporter

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
            made[kind] = export_merged(opened, path, SilentReporter(), apart=False)
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
    export_merged(opened, tmp_path / "out", reporter, check=0)
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
