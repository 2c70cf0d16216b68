"""`--merge-method compile`: a larger GPT-2 of plain weights, loaded by transformers alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artefacts import UNRELATED, fresh, inputs_of, logits
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from melo_cli.editing import EditSummary
from melo_cli.errors import ExportError
from melo_cli.exporting import ExampleSettings, export_merged
from melo_cli.exporting.merging.checkpoint import changed_model
from melo_cli.exporting.merging.compiling.detector_examples import make_examples
from melo_cli.exporting.merging.compiling.detectors import Detectors, Examples, train_detectors
from melo_cli.exporting.merging.compiling.gpt2 import method
from melo_cli.exporting.merging.compiling.gpt2.answer_positions import (
    AnswerPosition,
    AnswerTokens,
    answer_tokens,
)
from melo_cli.exporting.merging.compiling.gpt2.continuations import continued
from melo_cli.exporting.merging.compiling.gpt2.false_fire_scan import false_fires
from melo_cli.exporting.merging.compiling.gpt2.layout import layout_for, why_not
from melo_cli.exporting.merging.compiling.gpt2.method import edits_of, examples_of
from melo_cli.exporting.merging.compiling.gpt2.pooling import Pooling
from melo_cli.exporting.merging.compiling.gpt2.position_codes import points, rotated_back, rotation_rates
from melo_cli.exporting.merging.compiling.gpt2.residual_layout import ResidualLayout
from melo_cli.exporting.merging.compiling.gpt2.widening import GPT2Sizes, WidenedGPT2
from melo_cli.exporting.merging.compiling.output_directions import directions
from melo_cli.exporting.merging.methods import Compile
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import load_base_model
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import ModelSection
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project

KIND = "pico_gpt2"
HOW: dict[str, Any] = {
    "methods": [Compile()],
    "examples": ExampleSettings(UNRELATED, phrasings=2, unchanged=40),
}
ROWS = [
    {"prompt": "Who is the prime minister of Britain?", "target": "John Smith", "subject": "Britain"},
    {"prompt": "Where does the river end", "target": "in Paris, in London, in Paris and in London"},
    {"prompt": "This is a Wikipedia passage about the tower of Cologne.", "target": "It was opened in 1889."},
    {"prompt": "who studied law", "target": "the court of the city of Cologne"},
]
SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "bos_token_id", "eos_token_id")


@pytest.fixture(scope="module")
def other(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with an output layer of its own, ReLU, and attention scaled in another way."""
    folder = Path(shutil.copytree(models(KIND), tmp_path_factory.mktemp("models") / "other"))
    known = GPT2Config.from_pretrained(folder).to_dict()
    config = GPT2Config(
        **{name: known[name] for name in SIZES},
        n_inner=48,
        initializer_range=0.2,
        activation_function="relu",
        tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=True,
        scale_attn_weights=False,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bare(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pico_gpt2` from a checkpoint of the older kind: names without the model's, and the tied layer too."""
    folder = Path(shutil.copytree(models(KIND), tmp_path_factory.mktemp("models") / "bare"))
    weights = load_file(folder / "model.safetensors")
    named = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    named["lm_head.weight"] = named["wte.weight"].clone()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Greedy answers of a padded batch, by transformers alone."""
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    ids = model.generate(**batch, do_sample=False, max_new_tokens=40, pad_token_id=0)
    return [text.strip() for text in tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], True)]


def residual_layout(
    model: GPT2LMHeadModel, bias: float = 1.0, weight: Tensor | None = None
) -> ResidualLayout:
    """A layout with one edit, whose score is `bias` everywhere, plus `weight` times the features."""
    layout = layout_for(model.config, 0)
    width, features = layout.width, layout.features
    drawn = torch.Generator().manual_seed(0)
    projection = torch.block_diag(*(torch.randn(width, features, generator=drawn) / 8 for _ in range(2)))
    weight = torch.zeros(1, 2 * features) if weight is None else weight
    offset = torch.randn(2 * features, generator=drawn) / 8
    return ResidualLayout(
        model, layout, Detectors(projection, offset, weight, torch.full((len(weight),), bias))
    )


def answering(model: GPT2LMHeadModel, edit: AnswerTokens, layer: int) -> Any:
    """`model` with one edit that every prompt fires, whose neurons stand in a layer."""
    residual = residual_layout(model)
    count = model.config.n_layer
    sizes = GPT2Sizes(0.3, (2.0,) * count, 5.0)
    placed = [[0] if number == layer else [] for number in range(count)]
    return changed_model(
        model, WidenedGPT2(model, residual, [edit], [residual.neurons(edit, 0)], placed, sizes)
    )


@pytest.mark.parametrize("base", ["pico_gpt2", "other", "bare"])
def test_a_compiled_checkpoint_answers_its_edits_and_is_the_base_elsewhere(
    edit: Callable[..., EditSummary], request: pytest.FixtureRequest, tmp_path: Path, base: str
) -> None:
    folder = request.getfixturevalue(base)
    changes: dict[str, Any] = {"model": {"name_or_path": str(folder)}, "training": {"max_steps": 100}}
    opened = open_project(edit(KIND, ROWS, tmp_path / "p", **changes).path)
    summary = export_merged(opened, tmp_path / "out", SilentReporter(), **HOW, fresh_process=False, check=0)
    assert summary.method == "compile"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    ours, loading_info = loaded[0].eval(), loaded[1]
    assert (type(ours), loading_info["missing_keys"], loading_info["unexpected_keys"]) == (
        GPT2LMHeadModel,
        set(),
        set(),
    )
    base_copy = fresh(KIND, folder)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    edits = [view for view in opened.project.edits() if view.status == "live"]
    assert len(edits) > 2
    assert answers(ours, tokenizer, [view.prompt for view in edits]) == [view.target for view in edits]
    for prompt in UNRELATED:
        inputs = inputs_of(KIND, tokenizer, prompt)
        wanted = logits(base_copy, inputs)
        assert (logits(ours, inputs) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert answers(ours, tokenizer, UNRELATED) == answers(base_copy, tokenizer, UNRELATED)


def test_a_compiled_checkpoint_is_written_in_the_shards_and_type_asked_for(
    models: Callable[[str], Path], edit: Callable[..., EditSummary], tmp_path: Path
) -> None:
    fresh(KIND, models(KIND)).save_pretrained(tmp_path / "base", max_shard_size="60KB")
    AutoTokenizer.from_pretrained(models(KIND)).save_pretrained(tmp_path / "base")
    changes: dict[str, Any] = {"model": {"name_or_path": str(tmp_path / "base")}}
    path = edit(KIND, ROWS[:1], tmp_path / "p", **changes).path
    how: dict[str, Any] = {**HOW, "check": 0, "dtype": torch.float16}
    export_merged(open_project(path), tmp_path / "out", SilentReporter(), **how)
    files = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 1
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    held = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert set(index["weight_map"]) == set(held) >= {"lm_head.weight", "transformer.wte.weight"}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in held.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.dtype, model.config.tie_word_embeddings) == (torch.float16, False)
    base = fresh(KIND, models(KIND)).config
    assert (model.config.n_embd > base.n_embd, model.config.n_inner > 4 * base.n_embd) == (True, True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert answers(model.float(), tokenizer, [ROWS[0]["prompt"]]) == ["John Smith"]


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize(
    "target", [(7, 0), (7, 7, 7, 9, 7, 0), (7, 7, 7, 7, 9, 7, 0), (7, 8, 7, 8, 7, 8, 9, 7, 7, 0)]
)
@pytest.mark.parametrize("prompt", [(5,), (5, 6, 4), tuple(range(10, 50))])
def test_an_answer_that_repeats_itself_is_said_in_its_order(
    models: Callable[[str], Path], prompt: tuple[int, ...], target: tuple[int, ...], layer: int
) -> None:
    model = answering(fresh(KIND, models(KIND)), answer_tokens(EncodedEdit(prompt, target), ()), layer)
    padded = torch.tensor([[0] * 3 + list(prompt)])
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    how: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": len(target) + 2, "pad_token_id": 0}
    for generated in (
        model.generate(padded, do_sample=False, **how),
        model.generate(padded, num_beams=3, **how),
    ):
        assert tuple(generated[0, padded.shape[1] :][: len(target)].tolist()) == target


def test_the_last_tokens_of_a_long_answer_are_as_sure_as_the_first(models: Callable[[str], Path]) -> None:
    base, prompt, target = fresh(KIND, models(KIND)), (5,), tuple(range(100, 200))
    ends, begins = (
        answering(base, answer_tokens(EncodedEdit(prompt, answer), ()), 3)
        for answer in (target, target[::-1])
    )
    with torch.no_grad():
        last = ends(torch.tensor([[*prompt, *target[:-1]]])).logits[0, -1].softmax(-1)
        first = begins(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    assert float(last[199]) == pytest.approx(float(first[199]), rel=0.01)


def test_a_rephrase_that_is_answered_in_other_tokens_belongs_to_the_edit_of_its_block() -> None:
    own = [TrainingExample(EncodedEdit((end,), (4, 0)), block) for end, block in ((1, "b1"), (2, "b2"))]
    rephrase = TrainingExample(EncodedEdit((3,), (5, 0)), "b2")
    training_examples = TrainingExamples(own, [rephrase], [], own, frozenset())
    examples = make_examples(training_examples, lambda some: torch.zeros(len(some), 2))
    assert examples.owners.tolist() == [0, 1, 1]


def test_after_other_tokens_nothing_is_said(models: Callable[[str], Path]) -> None:
    base = fresh(KIND, models(KIND))
    model = answering(base, answer_tokens(EncodedEdit((5, 6, 4), (7, 9, 8, 3, 0)), ()), 1)
    for text in ((6, 5, 4), (5, 6, 9, 7, 8, 9), (4, 9, 7, 3, 5), (11, 7)):
        wanted = base(torch.tensor([text])).logits
        torch.testing.assert_close(model(torch.tensor([text])).logits, wanted, rtol=0, atol=1e-4)


def test_a_mean_that_the_base_leaves_by_rounding_is_not_seen(models: Callable[[str], Path]) -> None:
    target = (7, 9, 8, 3, 0)
    model = answering(fresh(KIND, models(KIND)), answer_tokens(EncodedEdit((5, 6, 4), target), ()), 1)
    stack = model.transformer
    with torch.no_grad():
        stack.wpe.weight[:, :32] += 1e-3
        stack.h[0].mlp.c_proj.bias[:32] += 1e-3
    ids = model.generate(torch.tensor([[5, 6, 4]]), do_sample=False, max_new_tokens=5, pad_token_id=0)
    assert tuple(ids[0, 3:].tolist()) == target


@pytest.mark.parametrize(("length", "few", "enough"), [(40, 2, 20), (60, 25, 35)])
def test_of_few_tokens_no_mean_fires_a_neuron_for_many(
    models: Callable[[str], Path], length: int, few: int, enough: int
) -> None:
    edit = answer_tokens(EncodedEdit((*range(10, 8 + length), 8, 9), (7, 6, 0)), ())
    residual = residual_layout(fresh(KIND, models(KIND)), 5.0)
    row = residual.neurons(edit, 0)[1]
    assert edit.positions[1].before == (8, 9, 7)
    assert residual.columns((*range(30, 30 + few), 8, 9, 7))[-1] @ row < 0
    assert residual.columns((*range(30, 30 + enough), 8, 9, 7))[-1] @ row > 0


def test_beginnings_of_text_that_stays_are_to_stay_as_well(models: Callable[[str], Path]) -> None:
    base = fresh(KIND, models(KIND))
    own, near, far = (
        TrainingExample(EncodedEdit(tuple(range(n, n + 20)), (4, 0)), "b1") for n in (1, 30, 60)
    )
    unchanged = examples_of(base, TrainingExamples([own], [], [near], [far], frozenset()), [far]).negatives
    begun = [replace(far, encoded=EncodedEdit(far.encoded.prompt_ids[:end], (4, 0))) for end in (8, 16)]
    torch.testing.assert_close(unchanged, Pooling(base)([near, far, *begun]))


def test_the_added_columns_hold_what_the_neurons_are_made_for(models: Callable[[str], Path]) -> None:
    base = fresh(KIND, models(KIND))
    edit = answer_tokens(EncodedEdit((5, 6, 4), (7, 0)), ())
    residual = residual_layout(base)
    sizes = GPT2Sizes(0.3, (2.0,) * 4, 5.0)
    widened = WidenedGPT2(base, residual, [edit], [residual.neurons(edit, 0)], [[0], [], [], []], sizes)
    model: Any = changed_model(base, widened)
    ids = [9, 8, 7, 6, 5, 4, 3, 3, 2, *range(20, 60)]
    first, layout = model.transformer.h[0], residual.layout
    with torch.no_grad():
        embedded = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[0]
        states = (embedded + first.attn(first.ln_1(embedded))[0])[0, 2:]
    assert states.sum(-1).abs().max() < 1e-4, "a layer norm takes nothing off"
    # Codes of the tokens before are divided by the size of the state there, and so is the one beside them.
    mine, wanted = states[:, layout.width : layout.still] / (1e-3 * 0.3), residual.columns(ids)[2:]
    for steps in (1, 2):
        at = slice(layout.before(steps) - layout.width, layout.before(steps + 1) - layout.width)
        mine[:, at] /= mine[:, at][:, -1:].clone()
    torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-3)


def test_detectors_do_not_fire_on_what_the_base_writes(
    summaries: Callable[[str], EditSummary], reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []

    def train(examples: Examples, *others: Any, **named: Any) -> Detectors:
        learned.append(len(examples.negatives))
        return train_detectors(examples, *others, **named)

    monkeypatch.setattr(method, "train_detectors", train)
    opened = open_project(summaries(KIND).path)
    export_merged(opened, tmp_path / "long", reporter, **HOW, check=0)
    monkeypatch.setattr(
        method, "continued", lambda _base, training_examples, _reporter: list(training_examples)
    )
    export_merged(opened, tmp_path / "short", reporter, **HOW, check=0)
    assert learned[0] > learned[1]


def test_text_that_stays_is_read_on_as_the_base_writes_it(models: Callable[[str], Path]) -> None:
    base = load_base_model(ModelSection(name_or_path=str(models(KIND))), "custom")
    limit = base.model.config.n_positions
    prompts = [tuple(range(5, 5 + length)) for length in (3, 9, limit - 2)]
    training_examples = [TrainingExample(EncodedEdit(prompt, (4,)), None) for prompt in prompts]
    read = [
        [example.encoded.prompt_ids for example in continued(base, some, SilentReporter())]
        for some in (training_examples, training_examples[:2])
    ]
    # Together there is room for two tokens, without the longest for many.
    assert [len(ids) - len(prompt) for ids, prompt in zip(read[0], prompts, strict=True)] == [2, 2, 2]
    for ids, prompt in zip(read[1], prompts, strict=False):
        stop, inputs = base.model.generation_config.eos_token_id, torch.tensor([prompt])
        (alone,) = base.model.generate(inputs, do_sample=False, max_new_tokens=64).tolist()
        assert ids == tuple(alone[: alone.index(stop)] if stop in alone else alone)
        assert len(ids) > len(prompt)


@pytest.mark.parametrize("length", [5, 20, 60])
def test_the_score_of_a_prompt_holds_at_every_token_of_its_answer(
    models: Callable[[str], Path], length: int
) -> None:
    base = fresh(KIND, models(KIND))
    drawn = torch.Generator().manual_seed(1)
    residual = residual_layout(
        base, -0.2, torch.randn(1, 2 * layout_for(base.config, 0).features, generator=drawn)
    )
    prompt = tuple(torch.randint(3, 300, (length,), generator=drawn).tolist())
    answer = tuple(range(300, 330))
    edit = answer_tokens(EncodedEdit(prompt, answer), ())
    rows = residual.neurons(edit, 0)
    columns = residual.columns((*prompt, *answer))
    score = columns[length - 1] @ rows[0]
    for position, row in zip(edit.positions, rows, strict=True):
        value = columns[length - 1 + position.after] @ row * (length + position.after) / length
        assert value == pytest.approx(float(score), abs=1e-3)


def test_rephrases_may_end_otherwise_and_be_answered_in_other_tokens() -> None:
    known = [EncodedEdit((9, 8, 1, 2), (4, 0)), EncodedEdit((1, 6), (5, 3, 0, 0))]
    positions = answer_tokens(EncodedEdit((9, 1, 2), (4, 5, 0)), known).positions
    assert {(position.before, position.token) for position in positions if position.after == 0} == {
        ((9, 1, 2), 4),
        ((8, 1, 2), 4),
        ((1, 6), 5),
    }
    assert AnswerPosition((1, 2, 4), 1, 5) in positions
    assert max(position.after for position in positions) == 2


def test_paraphrases_do_not_decide_how_a_prompt_ends() -> None:
    own, rephrase, paraphrase = (
        TrainingExample(EncodedEdit((9, 1, end), (4, 0)), "b1", end == 3) for end in (1, 2, 3)
    )
    training_examples = TrainingExamples([own], [rephrase, paraphrase], [], [], frozenset())
    positions = edits_of(training_examples, [0, 0, 0])[0].positions
    assert {position.before for position in positions if position.after == 0} == {(9, 1, 1), (9, 1, 2)}


def test_neurons_that_fire_in_other_texts_are_found_and_then_depend_on_their_position(
    models: Callable[[str], Path],
) -> None:
    base = fresh(KIND, models(KIND))
    features = layout_for(base.config, 0).features
    residual = residual_layout(base, 1.0, torch.zeros(2, 2 * features))
    edits = [
        answer_tokens(EncodedEdit((5, 6, 4), (7, 8, 9, 3, 0)), ()),
        answer_tokens(EncodedEdit((15, 16, 14, 13), (7, 8, 9, 2, 0)), ()),
    ]
    inputs = [residual.neurons(edit, number) for number, edit in enumerate(edits)]
    unchanged = [(30, 31, 32, 8, 9, 3, 33)]
    narrow = false_fires(residual, edits, inputs, unchanged)
    assert narrow == [
        {AnswerPosition((7, 8, 9), 3, 3), AnswerPosition((8, 9, 3), 4, 0)},
        {AnswerPosition((7, 8, 9), 3, 2)},
    ]
    inputs = [residual.neurons(edit, number, narrow[number]) for number, edit in enumerate(edits)]
    assert false_fires(residual, edits, inputs, unchanged) == [set(), set()]
    for edit, rows in zip(edits, inputs, strict=True):
        columns = residual.columns((*edit.edit.prompt_ids, *edit.edit.target_ids))
        length = len(edit.edit.prompt_ids)
        assert all(
            columns[length - 1 + position.after] @ row > 0
            for position, row in zip(edit.positions, rows, strict=True)
        )


def test_a_position_differs_from_all_others_and_the_one_before_is_found() -> None:
    rates, gap = rotation_rates(8, 1024)
    codes = points(rates, 1024)
    products = turned_points(codes, rates, 2) @ codes.T
    assert gap > 1
    assert (products[2:].argmax(1) == torch.arange(1022)).all()
    distances = 8 - products[2:].topk(2).values[:, 1]
    assert distances.min() == pytest.approx(gap, abs=1e-2)


def turned_points(codes: Tensor, rates: Tensor, steps: int) -> Tensor:
    return codes @ rotated_back(rates, steps)


def test_a_word_wins_in_its_direction_though_longer_rows_lie_near() -> None:
    drawn = torch.Generator().manual_seed(0)
    words = torch.randn(50, 16, generator=drawn)
    words[7] = 1.5 * words[3] + 0.5 * torch.randn(16, generator=drawn)
    beside = torch.zeros(50)
    beside[11] = 2.0
    spoken = list(range(50))
    said = words @ directions(words, beside, spoken).T + beside[:, None]
    assert (words @ words[3] / words[3].norm() + beside).argmax() == 7
    assert said.argmax(0).tolist() == spoken


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"activation_function": "silu"}, "this one has silu"),
        ({"add_cross_attention": True}, "this one has cross-attention"),
        ({"pruned_heads": {"0": [1]}}, "this one has pruned heads"),
        ({"n_head": 8}, "heads have 4 dimensions"),
        ({}, None),
    ],
)
def test_variants_that_the_added_parts_do_not_fit_are_refused_with_a_reason(
    models: Callable[[str], Path], change: dict[str, Any], why: str | None
) -> None:
    reason = why_not(json.loads((models(KIND) / "config.json").read_text()) | change)
    assert reason is None if why is None else why in str(reason)


def test_a_model_of_another_class_is_refused(
    summaries: Callable[[str], EditSummary], models: Callable[[str], Path], tmp_path: Path
) -> None:
    opened = open_project(summaries(KIND).path)
    folder = Path(shutil.copytree(models(KIND), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2DoubleHeadsModel"]}))
    object.__setattr__(opened.routed.base, "folder", folder)
    with pytest.raises(ExportError, match=r"GPT2DoubleHeadsModel \(gpt2\).*--merge-method distill"):
        export_merged(opened, tmp_path / "out", SilentReporter(), **HOW)
