"""`--merge-method compile`: a larger T5 of plain weights, loaded by transformers alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from artefacts import UNRELATED, fresh, inputs_of, logits
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from melo_cli.editing import EditSummary
from melo_cli.errors import ExportError
from melo_cli.exporting import ExampleSettings, export_merged
from melo_cli.exporting.merging.checkpoint import changed_model
from melo_cli.exporting.merging.compiling.detectors import Detectors, Examples, same_answer, train_detectors
from melo_cli.exporting.merging.compiling.neurons import assign_layers
from melo_cli.exporting.merging.compiling.t5.layout import layout_for
from melo_cli.exporting.merging.compiling.t5.position_codes import curve, tangent
from melo_cli.exporting.merging.compiling.t5.widening import T5Sizes, WidenedT5
from melo_cli.exporting.merging.methods import Compile, Sum
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project

SIZES = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers"),
    *("initializer_factor", "pad_token_id", "eos_token_id", "decoder_start_token_id"),
)
HOW: dict[str, Any] = {
    "methods": [Compile()],
    "examples": ExampleSettings(UNRELATED, phrasings=2, unchanged=40),
}


@pytest.fixture(scope="module")
def gated(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of the later kind: gated GELU, and an output layer of its own."""
    folder = Path(shutil.copytree(models("pico_t5"), tmp_path_factory.mktemp("models") / "gated"))
    known = T5Config.from_pretrained(folder).to_dict()
    like = {name: known[name] for name in SIZES}
    config = T5Config(**like, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def repeated(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pico_t5` from a checkpoint that holds its embeddings under each of their names, not all equal."""
    folder = Path(shutil.copytree(models("pico_t5"), tmp_path_factory.mktemp("models") / "repeated"))
    weights = load_file(folder / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    weights["lm_head.weight"] = weights["shared.weight"] + 0.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Greedy answers of a padded batch, by transformers alone."""
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    ids = model.generate(**batch, do_sample=False, max_new_tokens=12)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def answering(model: T5ForConditionalGeneration, target: tuple[int, ...], layer: int = 3) -> Any:
    """`model` with one edit that every prompt fires, whose neurons stand in a decoder layer."""
    config: Any = model.config
    layout = layout_for(config, len(target))
    width, features = config.d_model, layout.features
    nothing = torch.zeros(width, features)
    always = Detectors(nothing, torch.zeros(features), torch.zeros(1, features), torch.ones(1))
    sizes = T5Sizes(20.0, (20.0,) * config.num_decoder_layers, 20.0)
    placed = [[0] if number == layer else [] for number in range(config.num_decoder_layers)]
    return changed_model(model, WidenedT5(model, layout, always, [target], placed, sizes))


@pytest.mark.parametrize("base", ["pico_t5", "gated", "repeated"])
def test_a_compiled_checkpoint_answers_its_edits_and_is_the_base_elsewhere(
    edit: Callable[..., EditSummary],
    rows: dict[str, list[dict[str, Any]]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    base: str,
) -> None:
    folder = request.getfixturevalue(base)
    path = edit("pico_t5", rows["pico_t5"], tmp_path / "p", model={"name_or_path": str(folder)}).path
    opened = open_project(path)
    summary = export_merged(opened, tmp_path / "out", SilentReporter(), **HOW, fresh_process=False)
    assert summary.method == "compile"
    ours, base_copy = fresh("pico_t5", tmp_path / "out"), fresh("pico_t5", folder)
    assert type(ours) is T5ForConditionalGeneration
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    edits = [view for view in opened.project.edits() if view.status == "live"]
    assert answers(ours, tokenizer, [view.prompt for view in edits]) == [view.target for view in edits]
    assert summary.figures["merged"]["edit_success"]["generation"] == 1.0
    for prompt in UNRELATED:
        inputs = inputs_of("pico_t5", tokenizer, prompt)
        wanted = logits(base_copy, inputs)
        assert (logits(ours, inputs) - wanted).abs().max() < 3e-4 * wanted.abs().max()
    assert answers(ours, tokenizer, UNRELATED) == answers(base_copy, tokenizer, UNRELATED)


def test_a_compiled_checkpoint_is_written_in_the_shards_and_type_asked_for(
    models: Callable[[str], Path], edit: Callable[..., EditSummary], tmp_path: Path
) -> None:
    fresh("pico_t5", models("pico_t5")).save_pretrained(tmp_path / "base", max_shard_size="60KB")
    AutoTokenizer.from_pretrained(models("pico_t5")).save_pretrained(tmp_path / "base")
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_t5", rows, tmp_path / "p", model={"name_or_path": str(tmp_path / "base")}).path
    how: dict[str, Any] = {**HOW, "check": 0, "dtype": torch.float16}
    export_merged(open_project(path), tmp_path / "out", SilentReporter(), **how)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float16
    base = fresh("pico_t5", models("pico_t5")).config
    assert (model.config.d_model > base.d_model, model.config.d_ff > base.d_ff) == (True, True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert answers(model.float(), tokenizer, ["who studied law"]) == ["London"]


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("target", [(7, 1), (7, 7, 7, 9, 7, 1), (7, 8, 7, 8, 7, 8, 9, 7, 7, 1)])
def test_an_answer_that_repeats_itself_is_said_in_its_order(
    models: Callable[[str], Path], target: tuple[int, ...], layer: int
) -> None:
    model = answering(fresh("pico_t5", models("pico_t5")), target, layer)
    ids = model.generate(torch.tensor([[5, 6, 1]]), do_sample=False, max_new_tokens=len(target) + 2)
    assert tuple(ids[0, 1 : len(target) + 1].tolist()) == target
    beams = model.generate(torch.tensor([[5, 6, 1]]), num_beams=3, max_new_tokens=len(target) + 2)
    assert tuple(beams[0, 1 : len(target) + 1].tolist()) == target


def test_every_position_of_the_first_hundred_has_a_tangent() -> None:
    points = curve(T5Config(), 100)
    for position in range(16):
        direction = tangent(points, position)
        assert direction is not None
        behind = (points[position] - points) @ direction
        assert (behind[torch.arange(100) != position] > 0).all()


def test_of_edits_that_are_alike_each_leads_on_its_own_prompt_and_other_prompts_fire_none() -> None:
    drawn = torch.Generator().manual_seed(0)
    frame, names = torch.randn(16, generator=drawn), torch.randn(60, 16, generator=drawn)
    positives = frame + names[:8]
    examples = Examples(
        positives, torch.arange(8), frame + names[8:], same_answer([(edit,) for edit in range(8)])
    )
    detectors = train_detectors(examples, 12, 0, SilentReporter())
    scores = detectors.scores(positives)
    assert detectors.weight.shape == (8, 12)
    assert (scores.argmax(1) == torch.arange(8)).all()
    assert (scores.diagonal() > 0.1).all()
    assert (detectors.scores(examples.negatives).amax(1) > 0).float().mean() < 0.1


def test_edits_that_fire_together_stand_in_one_layer_and_no_layer_is_full_before_the_others() -> None:
    counts = [5, 4, 3, 3, 2, 1]
    placed = assign_layers(counts, [[0, 4], [1], [2], [3], [5]], 3)
    assert sorted(edit for layer in placed for edit in layer) == list(range(6))
    assert any({0, 4} <= set(layer) for layer in placed)
    assert max(sum(counts[edit] for edit in layer) for layer in placed) == 7


@pytest.mark.parametrize("kind", ["pico_llama", "pico_bert"])
def test_other_models_are_refused_with_what_it_is_for(
    summaries: Callable[[str], EditSummary], tmp_path: Path, kind: str
) -> None:
    opened = open_project(summaries(kind).path)
    with pytest.raises(ExportError, match="GPT-2 and encoder-decoder T5 .*use --merge-method distill"):
        export_merged(opened, tmp_path / "out", SilentReporter(), **HOW)
    assert not (tmp_path / "out").exists()


def test_edits_without_unrelated_text_are_not_compiled(
    edit: Callable[..., EditSummary], tmp_path: Path
) -> None:
    path = edit("pico_t5", [{"prompt": "who studied law", "target": "London"}], tmp_path / "p").path
    examples = ExampleSettings(phrasings=2, unchanged=40)
    with pytest.raises(ExportError, match="no unrelated text.*--unrelated"):
        export_merged(
            open_project(path), tmp_path / "out", SilentReporter(), methods=[Compile()], examples=examples
        )
    summary = export_merged(
        open_project(path),
        tmp_path / "out",
        SilentReporter(),
        methods=[Sum(), Compile()],
        examples=examples,
        check=0,
    )
    assert summary.method == "sum", "a choice does without it"


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2"])
def test_auto_tries_it_where_the_model_allows(
    summaries: Callable[[str], EditSummary],
    reporter: Any,
    tmp_path: Path,
    kind: str,
) -> None:
    opened = open_project(summaries(kind).path)
    # The dearer ones have tests of their own.
    how: dict[str, Any] = {
        "methods": [Sum(), Compile()],
        "examples": ExampleSettings(UNRELATED, phrasings=2, unchanged=8),
    }
    export_merged(opened, tmp_path / "out", reporter, **how, check=0)
    tried = [line.partition(":")[0] for line in reporter.infos if " keeps " in line]
    assert tried == ["sum", "compile"]
