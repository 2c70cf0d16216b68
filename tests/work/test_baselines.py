"""Other editors on the same edits: what they learn, what they leave, and that the base comes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from melo_cli.errors import MeloError
from melo_cli.evaluation import EvalReport, evaluate
from melo_cli.evaluation.baselines import Baseline, parse_baselines
from melo_cli.evaluation.baselines.alphaedit import AlphaEdit
from melo_cli.evaluation.baselines.codebook import Codebook
from melo_cli.evaluation.baselines.finetune import Finetune
from melo_cli.evaluation.baselines.grace import Grace, GraceModel, grace_layer
from melo_cli.evaluation.baselines.key_values import EditSite, Fact, closed_form, subject_position
from melo_cli.evaluation.baselines.lora import Lora
from melo_cli.evaluation.baselines.modules import one_module
from melo_cli.models.encoding import EncodedEdit, Encoder, pad_prompts
from melo_cli.models.linear_layers import linear_shape
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.corpus import load_corpus

Shared = Callable[[str], OpenProject]
BASELINES = ["finetune", "lora", "grace", "alphaedit"]
FINETUNE = Finetune(lr=0.01, epochs=60)
LORA = Lora(lr=0.03, epochs=60, rank=6)
GRACE = Grace(lr=0.5, steps=20)
# The keys of a tiny model with random weights fill its space: half of it has to do as null space.
ALPHAEDIT = AlphaEdit(lr=0.5, clamp=20.0, contexts=1, texts=40, null_threshold=0.005, ridge=0.001)


class SilentProgress:
    def advance(self, steps: int = 1, **figures: float) -> None:
        return None


class OneBarAtATime(SilentReporter):
    """A terminal draws one bar at a time."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self._busy = False

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[SilentProgress]:
        assert not self._busy, label
        self.labels.append(label)
        self._busy = True
        yield SilentProgress()
        self._busy = False


class Broken:
    def advance(self, steps: int = 1, **figures: float) -> None:
        raise RuntimeError("stopped")


EDITORS: dict[str, Baseline] = {
    "finetune": FINETUNE,
    "all weights": Finetune(lr=0.01, epochs=20, weights="all"),
    "lora": LORA,
    "lora everywhere": Lora(lr=0.03, epochs=20, rank=3, weights="all"),
    "grace": GRACE,
    "alphaedit": ALPHAEDIT,
}


def ids(batches: list[list[EncodedEdit]]) -> list[str]:
    return [f"e{number + 1:06d}" for number in range(sum(len(batch) for batch in batches))]


def batches_of(opened: OpenProject) -> list[list[EncodedEdit]]:
    edits = [opened.encoder.edit(edit.prompt, edit.target) for edit in opened.project.edits()]
    return [edits[:4], edits[4:]]


def prompts_of(opened: OpenProject) -> list[str]:
    return [edit.prompt for edit in opened.project.edits()]


def answers(opened: OpenProject, edits: list[EncodedEdit], blocks: list[str | None]) -> list[str]:
    return opened.inference.answers([edit.prompt_ids for edit in edits], blocks, [6] * len(edits))


def state(opened: OpenProject) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in opened.routed.base.model.state_dict().items()}


def assert_as_before(opened: OpenProject, before: dict[str, torch.Tensor]) -> None:
    model = opened.routed.base.model
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# What every baseline holds to


@pytest.mark.parametrize("name", EDITORS)
def test_the_model_changes_inside_and_is_as_before_afterwards(name: str, shared: Shared) -> None:
    opened = shared("pico_gpt2")
    batches = batches_of(opened)
    last, nobody = batches[-1], [None] * len(batches[-1])
    before, said = state(opened), answers(opened, last, nobody)
    with EDITORS[name].edited(opened, batches, ids(batches), SilentProgress()) as changed:
        routes = changed.opened.inference.routes(prompts_of(opened)[4:])
        blocks = [route.fired.block if route.fired else None for route in routes]
        inside = answers(changed.opened, last, blocks if name == "grace" else nobody)
    assert all(one != other for one, other in zip(inside, said, strict=True))
    assert_as_before(opened, before)
    assert answers(opened, last, nobody) == said


@pytest.mark.parametrize("name", EDITORS)
def test_a_run_that_breaks_off_leaves_the_model_as_it_was(name: str, shared: Shared) -> None:
    opened = shared("pico_bert")
    before = state(opened)
    batches = batches_of(opened)
    with (
        pytest.raises(RuntimeError, match="stopped"),
        EDITORS[name].edited(opened, batches, ids(batches), Broken()),
    ):
        pytest.fail("it was to break off")
    assert_as_before(opened, before)


@pytest.fixture(scope="module")
def report(shared: Shared) -> EvalReport:
    """All baselines on the classifier, whose base has four of six edits wrong."""
    baselines = [FINETUNE, LORA, Grace(lr=0.5, steps=60), ALPHAEDIT]
    reporter = OneBarAtATime()
    made = evaluate(shared("pico_bert"), reporter, baselines=baselines)
    assert reporter.labels == [
        "asking",
        *(f"{what} {name}" for name in BASELINES for what in ("training", "asking")),
    ]
    return made


def test_baselines_are_measured_as_the_edited_model_is(report: EvalReport) -> None:
    assert list(report.columns()) == ["base", "edited", *BASELINES]
    for baseline in report.baselines.values():
        assert set(baseline.figures) == set(report.edited)
        for metric in ("edit_success", "generality", "locality_agreement"):
            assert baseline.figures[metric]["n"] == report.edited[metric]["n"]
        # Only what the base has wrong is trained.
        assert baseline.settings["edits"] == 4
        assert baseline.train_seconds > 0
        assert baseline.ask_seconds > 0


def test_only_grace_has_a_router(report: EvalReport) -> None:
    for name in ("finetune", "lora", "alphaedit"):
        figures = report.baselines[name].figures
        assert {figures[metric] for metric in ("fired_edits", "fired_unrelated", "nearest_right")} == {None}
    assert report.baselines["grace"].figures["fired_edits"] == pytest.approx(4 / 6)
    assert report.baselines["grace"].figures["edit_success"]["generation"] == 1.0


def test_weights_that_move_change_unrelated_answers_too(report: EvalReport) -> None:
    assert report.edited["locality_agreement"]["generation"] == 3 / 4
    assert report.baselines["finetune"].figures["locality_agreement"]["generation"] < 3 / 4


def test_the_document_has_the_baselines_with_settings_and_seconds(report: EvalReport) -> None:
    baselines = report.to_json()["baselines"]
    assert list(baselines) == BASELINES
    assert baselines["finetune"]["settings"] == {
        "lr": 0.01,
        "epochs": 60,
        "epochs_taken": ANY,
        "stop_at": 0.9,
        "weights": "bert.encoder.layer.2.output.dense",
        "batch_size": 8,
        "edits": 4,
    }
    assert baselines["lora"]["settings"]["batch_size"] == 8
    assert set(baselines["lora"]["seconds"]) == {"train", "ask"}
    # Settings that were left to the recipe or measured are given with the value in force.
    assert baselines["grace"]["settings"]["layer"] == "bert.encoder.layer.1.output.dense"
    assert baselines["grace"]["settings"]["radius"] > 0
    assert baselines["grace"]["settings"]["batch_size"] == 4
    assert baselines["alphaedit"]["settings"]["keys_at_subjects"] == 1


def test_one_lora_has_the_rank_of_all_blocks_together(shared: Shared) -> None:
    opened = shared("pico_bert")
    edits = [edit for batch in batches_of(opened) for edit in batch]
    # Blocks of rank 4 each; the modules are 64 by 32.
    for batches, rank in (([edits], 4), (batches_of(opened), 8), ([edits[:1]] * 10, 32)):
        with Lora(epochs=1).edited(opened, batches, ids(batches), SilentProgress()) as changed:
            assert changed.settings["rank"] == rank


# Fine-tuning and LoRA


def test_fine_tuning_moves_the_weights_that_were_named(shared: Shared) -> None:
    opened = shared("pico_bert")
    before = state(opened)
    batches, targets = batches_of(opened), set(opened.routed.tuner.layers)
    for weights in ("targets", "all"):
        settings = Finetune(lr=0.01, epochs=3, weights=weights)
        with settings.edited(opened, batches, ids(batches), SilentProgress()):
            moved = {name for name, value in state(opened).items() if not torch.equal(value, before[name])}
        inside = {name for name in moved if any(name.startswith(f"{target}.") for target in targets)}
        assert inside
        assert (moved == inside) is (weights == "targets")


@pytest.mark.parametrize("baseline", [FINETUNE, LORA], ids=lambda baseline: baseline.name)
def test_every_edit_is_answered_whichever_batch_it_came_in(baseline: Baseline, shared: Shared) -> None:
    opened = shared("pico_gpt2")
    edits = [edit for batch in batches_of(opened) for edit in batch]
    batches = [[edit] for edit in edits]
    with baseline.edited(opened, batches, ids(batches), SilentProgress()):
        said = answers(opened, edits, [None] * 6)
    # The stop token is learned, too: nothing follows the target.
    assert said == [edit.target for edit in opened.project.edits()]


def test_training_stops_when_every_target_token_is_as_probable_as_asked(shared: Shared) -> None:
    opened = shared("pico_bert")
    batches = batches_of(opened)
    edits = [edit for batch in batches for edit in batch]
    taken = []
    for stop_at in (0.5, 0.9):
        settings = FINETUNE.model_copy(update={"stop_at": stop_at})
        with settings.edited(opened, batches, ids(batches), SilentProgress()) as changed:
            scores = opened.inference.scores(edits, [None] * 6)
        assert all(math.exp(score.log_likelihood) >= stop_at - 1e-3 for score in scores)
        taken.append(changed.settings["epochs_taken"])
    assert taken[0] < taken[1] < settings.epochs


def test_the_seed_of_the_recipe_orders_the_edits(shared: Shared) -> None:
    def weights_after(seed: int) -> torch.Tensor:
        opened = shared("pico_gpt2")
        seeded = replace(opened, recipe=opened.recipe.model_copy(update={"seed": seed}))
        settings, batches = Finetune(lr=0.01, epochs=2, batch_size=2), batches_of(opened)
        with settings.edited(seeded, batches, ids(batches), SilentProgress()):
            return state(opened)["transformer.h.2.mlp.c_proj.weight"]

    assert torch.equal(weights_after(1), weights_after(1))
    assert not torch.equal(weights_after(1), weights_after(2))


def test_one_down_projection_is_trained_unless_others_are_named(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    before, batches = state(opened), batches_of(opened)
    for weights, prefix in (
        ("auto", "transformer.h.2.mlp.c_proj."),
        (r".*\.0\.mlp\.c_fc", "transformer.h.0.mlp."),
    ):
        settings = Finetune(epochs=1, weights=weights)
        with settings.edited(opened, batches, ids(batches), SilentProgress()):
            moved = {name for name, value in state(opened).items() if not torch.equal(value, before[name])}
        assert moved
        assert all(name.startswith(prefix) for name in moved)


@pytest.mark.parametrize(
    ("baseline", "line"),
    [
        (
            Finetune(weights="some"),
            "--baseline finetune: 'some' names no linear module of the model; name one with --baseline-set "
            "finetune.weights=NAME; `melo inspect MODEL` lists them",
        ),
        (Lora(weights="("), "--baseline lora: '(' is not a regular expression"),
        (
            AlphaEdit(weights=".*wo"),
            "--baseline alphaedit: '.*wo' names 8 modules, but alphaedit changes one",
        ),
        (
            AlphaEdit(weights="decoder.block.0.layer.2.DenseReluDense.wo"),
            "--baseline alphaedit: decoder.block.0.layer.2.DenseReluDense.wo does not run when a prompt is "
            "read; name a module of the encoder with --baseline-set alphaedit.weights=NAME",
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_module_that_cannot_be_trained_is_one_line(baseline: Baseline, line: str, shared: Shared) -> None:
    opened = shared("pico_t5")
    before, batches = state(opened), batches_of(opened)
    with (
        pytest.raises(MeloError) as caught,
        baseline.edited(opened, batches, ids(batches), SilentProgress()),
    ):
        pytest.fail("it was to be refused")
    assert str(caught.value).startswith(line)
    assert_as_before(opened, before)


def test_a_lora_is_pefts_with_the_rank_asked_for(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    with LORA.edited(opened, [], [], SilentProgress()):
        layers = [layer.base_layer for layer in opened.routed.tuner.layers.values()]
        assert all(isinstance(layer, LoraLayer) and layer.r == {"baseline": 6} for layer in layers)
        assert all(layer.scaling == {"baseline": 2.0} for layer in layers)
    assert not any(isinstance(module, LoraLayer) for module in opened.routed.base.model.modules())


# GRACE


def key(*values: float) -> Any:
    return np.array(values, np.float32)


def book() -> Codebook:
    codebook = Codebook(initial=1.0)
    assert codebook.insert(key(0, 0), (1, 2), "e1", torch.zeros(1)) == 0
    return codebook


def test_a_far_key_is_added() -> None:
    codebook = book()
    assert codebook.insert(key(2.5, 0), (1, 2), "e2", torch.zeros(1)) == 1
    assert codebook.epsilons == [1.0, 1.0]


def test_a_near_key_with_the_same_label_expands_the_old_one() -> None:
    codebook = book()
    assert codebook.insert(key(1.5, 0), (1, 2), "e2", torch.zeros(1)) == 0
    assert codebook.epsilons == [1.5]
    assert codebook.insert(key(0.5, 0), (1, 2), "e3", torch.zeros(1)) == 0
    assert codebook.epsilons == [1.5]


def test_a_near_key_with_another_label_splits_the_way_between() -> None:
    codebook = book()
    # The same tokens in another order are another label.
    assert codebook.insert(key(1.5, 0), (2, 1), "e2", torch.zeros(1)) == 1
    assert codebook.epsilons == pytest.approx([0.75, 0.75], abs=1e-4)
    assert sum(codebook.epsilons) < 1.5


def test_only_a_key_within_epsilon_fires() -> None:
    codebook = book()
    codebook.insert(key(9, 0), (3,), "e2", torch.zeros(1))
    near, far = codebook.lookup(np.stack([key(0.5, 0), key(7, 0)]))
    assert near.fired is not None
    assert (near.fired.edit_id, near.fired.block, near.fired.distance) == ("e1", "0", pytest.approx(0.5))
    assert far.fired is None
    assert far.nearest is not None
    assert (far.nearest.edit_id, far.nearest.distance) == ("e2", pytest.approx(2))
    assert Codebook().lookup(np.zeros((2, 3), np.float32))[0].nearest is None


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_bert"])
def test_a_value_answers_its_prompt_alone_whoever_the_batch_mates_are(kind: str, shared: Shared) -> None:
    opened = shared(kind)
    batches = batches_of(opened)
    edits = [edit for batch in batches for edit in batch]
    base = opened.inference.scores(edits, [None] * 6)
    with Grace(lr=0.5, steps=10).edited(opened, batches, ids(batches), SilentProgress()) as changed:
        routes = changed.opened.inference.routes(prompts_of(opened))
        blocks = [route.fired.block for route in routes if route.fired]
        assert [changed.opened.inference.routed.codebook.labels[int(block)] for block in blocks] == [
            edit.target_ids for edit in edits
        ]
        alone = [
            changed.opened.inference.scores([edit], [block])[0]
            for edit, block in zip(edits, blocks, strict=True)
        ]
        mixed = changed.opened.inference.scores(edits, [blocks[0], None, blocks[2], None, blocks[4], None])
        for row, score in enumerate(mixed):
            expected = base[row] if row % 2 else alone[row]
            assert score.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-3)
        better = [one.log_likelihood > other.log_likelihood for one, other in zip(alone, base, strict=True)]
        assert sum(better) >= 5
        written = answers(changed.opened, edits, list(blocks))
        assert written == [
            answers(changed.opened, [edit], [b])[0] for edit, b in zip(edits, blocks, strict=True)
        ]


def test_the_first_token_written_is_the_one_scored(shared: Shared) -> None:
    """In a decoder-only model prompts stand alone when answers are written, and before them when scored."""
    opened = shared("pico_gpt2")
    batches = batches_of(opened)
    edits = [edit for batch in batches for edit in batch]
    with GRACE.edited(opened, batches, ids(batches), SilentProgress()) as changed:
        blocks = [str(number) for number in range(6)]
        scores = changed.opened.inference.scores(edits, blocks)
        written = changed.opened.inference.answers([edit.prompt_ids for edit in edits], blocks, [1] * 6)
    assert written == [opened.encoder.text([score.choices[0]]) for score in scores]


def test_a_value_stands_at_the_prompts_tokens_and_not_at_the_answers(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    base = opened.routed.base
    inputs = pad_prompts(base, [edit.prompt_ids for edit in batches_of(opened)[0][:2]])
    module, name = grace_layer(opened, "")
    value = torch.arange(linear_shape(module)[1], dtype=torch.float32)
    book = Codebook(values=[value])
    model = GraceModel(base, name, book, opened.encoder)
    seen: list[torch.Tensor] = []

    def outputs(blocks: list[str | None]) -> torch.Tensor:
        with model.answers_of(2), model.using(blocks), torch.no_grad():
            # Registered last, it sees what the model's own hook made of the output.
            hook = base.model.get_submodule(name).register_forward_hook(lambda *given: seen.append(given[2]))
            base.model(**inputs)
            hook.remove()
        return seen[-1]

    plain, changed = outputs([None, None]), outputs(["0", None])
    assert torch.equal(changed[0, :-2], value.expand_as(changed[0, :-2]))
    assert torch.equal(changed[0, -2:], plain[0, -2:])
    assert torch.equal(changed[1], plain[1])


def test_keys_are_the_layers_input_at_the_last_prompt_token(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    edits = batches_of(opened)[0]
    module, name = grace_layer(opened, "")
    assert name == "transformer.h.2.mlp.c_fc"
    caught: list[torch.Tensor] = []
    with GRACE.edited(opened, [], [], SilentProgress()) as changed:
        keys = changed.opened.inference.routed.keys([edit.prompt_ids for edit in edits])
        hook = module.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
        for edit in edits:
            opened.routed.base.model(**pad_prompts(opened.routed.base, [edit.prompt_ids]))
        hook.remove()
    expected = torch.stack([hidden[0, -1] for hidden in caught]).detach().numpy()
    np.testing.assert_allclose(keys, expected, atol=1e-5)


def test_graces_layer_sees_the_prompt_and_can_be_named(shared: Shared) -> None:
    opened = shared("pico_t5")
    assert grace_layer(opened, "")[1] == "encoder.block.2.layer.1.DenseReluDense.wo"
    named = "encoder.block.0.layer.1.DenseReluDense.wi"
    assert isinstance(grace_layer(opened, named)[0], nn.Linear)
    with pytest.raises(MeloError, match="'shared' is no linear module of the model; name one with"):
        grace_layer(opened, "shared")


# AlphaEdit


def test_an_edit_by_alphaedit_is_answered(shared: Shared) -> None:
    opened = shared("pico_bert")
    edit = batches_of(opened)[0][0]
    before = answers(opened, [edit], [None])
    with ALPHAEDIT.edited(opened, [[edit]], ["e000001"], SilentProgress()):
        said = answers(opened, [edit], [None])
    assert said == [opened.project.edits()[0].target] != before


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2"])
def test_alphaedit_makes_the_target_of_a_generating_model_likelier(kind: str, shared: Shared) -> None:
    """Random weights look up nothing at a subject: no value there makes them say the target."""
    opened = shared(kind)
    edit = batches_of(opened)[0][0]
    settings = ALPHAEDIT.model_copy(update={"contexts": 0, "ridge": 1e-6})
    [before] = opened.inference.scores([edit], [None])
    with settings.edited(opened, [[edit]], ["e000001"], SilentProgress()):
        [after] = opened.inference.scores([edit], [None])
    assert after.log_likelihood > before.log_likelihood


def test_edits_of_one_update_by_alphaedit_are_answered_together(shared: Shared) -> None:
    opened = shared("pico_bert")
    batches = batches_of(opened)
    edits = [edit for batch in batches for edit in batch]
    with ALPHAEDIT.edited(opened, batches, ids(batches), SilentProgress()):
        said = answers(opened, edits, [None] * 6)
    assert said == [edit.target for edit in opened.project.edits()]


def test_a_later_update_leaves_what_the_module_gives_for_earlier_edits(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    edits = batches_of(opened)[0][:2]
    settings = ALPHAEDIT.model_copy(update={"batch_size": 1, "contexts": 0, "ridge": 1e-6})
    weights = []
    # Ids that the project does not know give no subject: the keys are at the last prompt token.
    for made in (edits[:1], edits):
        unknown = [f"unknown {number}" for number in range(len(made))]
        with settings.edited(opened, [made], unknown, SilentProgress()) as changed:
            name, module = one_module(opened, changed.settings["weights"], "alphaedit")
            weights.append(module.weight.detach().clone())
    facts = [Fact((edit,), (len(edit.prompt_ids) - 1,), has_subject=False) for edit in edits]
    earlier, later = EditSite(opened.routed.base, name, module).keys(facts) @ (weights[1] - weights[0])
    assert earlier.norm() < later.norm() / 50


def test_the_update_is_the_published_closed_form() -> None:
    earlier, keys, values = torch.randn(3, 7), torch.randn(2, 7), torch.randn(2, 4)
    published = values.T @ keys @ torch.inverse(keys.T @ keys + earlier.T @ earlier + 0.5 * torch.eye(7))
    torch.testing.assert_close(closed_form(earlier, keys, values, 0.5), published, atol=1e-4, rtol=1e-4)


def test_an_update_reaches_its_keys_and_leaves_earlier_ones() -> None:
    earlier, keys, values = torch.randn(3, 16), torch.randn(2, 16), torch.randn(2, 4)
    update = closed_form(earlier, keys, values, 1e-4)
    torch.testing.assert_close(keys @ update.T, values, atol=1e-2, rtol=1e-2)
    assert (earlier @ update.T).abs().max() < 1e-2


def test_general_text_is_spared_by_the_null_space(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    batches = batches_of(opened)
    name, module = one_module(opened, "transformer.h.1.mlp.c_proj", "alphaedit")
    before = module.weight.detach().clone()
    encoder = Encoder(opened.routed.base, truncate=True)
    prompts = [encoder.prompt(text) for text in load_corpus().unrelated[:40]]
    covariance, _ = EditSite(opened.routed.base, name, module).covariance(prompts)

    def moved(null_threshold: float) -> float:
        """How far the outputs at general tokens move, by the length of the update."""
        settings = ALPHAEDIT.model_copy(update={"weights": name, "null_threshold": null_threshold})
        with settings.edited(opened, batches, ids(batches), SilentProgress()):
            update = (module.weight - before).detach()
        return float(((update.T @ covariance) * update.T).sum() / update.square().sum())

    assert moved(0.005) < moved(1e9) / 5


def test_keys_are_taken_at_the_end_of_the_subject(shared: Shared) -> None:
    encoder = shared("pico_gpt2").encoder
    prompt = encoder.prompt("Is Britain where the prime minister of  britain lives?")
    place = subject_position(encoder, prompt, "Britain")
    assert place is not None
    assert encoder.tokenizer.decode(prompt[: place + 1]).endswith("of  britain")
    assert subject_position(encoder, prompt, "France") is None
    assert subject_position(encoder, prompt, None) is None


# Settings


def test_settings_are_read_and_checked() -> None:
    baselines = parse_baselines("base, lora,grace,lora", ["lora.rank=8", "grace.radius=0", "lora.lr = 1e-2"])
    assert baselines == [Lora(lr=1e-2, rank=8), Grace(radius=0.0)]
    assert parse_baselines(None, []) == []
    settings = ["finetune.weights=all", "finetune.epochs=7"]
    assert parse_baselines("finetune", settings) == [Finetune(weights="all", epochs=7)]


@pytest.mark.parametrize(
    ("names", "assignment", "line"),
    [
        ("lroa", None, "--baseline: 'lroa' is not a baseline; did you mean lora?"),
        ("lora", "lora.rnak=2", "--baseline-set lora.rnak=2: lora has no setting 'rnak'; did you mean rank?"),
        ("lora", "lora.rank=two", "--baseline-set lora.rank=two: 'two' is not a number"),
        ("lora", "lora.rank=0", "--baseline-set lora.rank=0: 0 is out of range; give a number above 0"),
        ("lora", "lora.lr=nan", "--baseline-set lora.lr=nan: nan is out of range; give a number above 0"),
        (
            "lora",
            "grace.lr=1",
            "--baseline-set grace.lr=1: the baseline grace is not selected; add --baseline grace",
        ),
        (
            "lora",
            "rank=2",
            "--baseline-set rank=2: the option needs the form NAME.SETTING=VALUE; for example "
            "finetune.lr=1e-4",
        ),
        (
            "finetune",
            "finetune.stop_at=1",
            "--baseline-set finetune.stop_at=1: 1 is out of range; give a number above 0 and below 1",
        ),
        (
            "alphaedit",
            "alphaedit.contexts=-1",
            "--baseline-set alphaedit.contexts=-1: -1 is out of range; give a number of at least 0",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(names: str, assignment: str | None, line: str) -> None:
    with pytest.raises(MeloError) as caught:
        parse_baselines(names, [assignment] if assignment else [])
    assert str(caught.value) == line
