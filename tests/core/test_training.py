"""Training a block: what it depends on, what it must leave alone, and that edits take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from melo_cli.editing.optimizers import Schedule, check_training_section
from melo_cli.editing.training import TrainedBlock, train_block
from melo_cli.errors import RecipeError
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.scoring import target_batch, target_logits, target_losses
from melo_store.projection import random_projection
from melo_store.quantization import rounded

Pico = Callable[..., OpenProject]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
EDITS = {
    "pico_t5": [("Who is the prime minister of Britain?", "John Smith"), ("Where does it end", "London")],
    "pico_gpt2": [("The tower was opened in", "1889"), ("John Smith was born in", "London")],
    "pico_llama": [("The tower was opened in", "1889"), ("John Smith was born in", "London")],
    "pico_bert": [("The court holds that the statute", "tax"), ("studied law in London", "civil")],
}


def trained(
    opened: OpenProject, kind: str, steps: int = 80, seed: int = 0, stop_at: float | None = None
) -> TrainedBlock:
    training = opened.recipe.training.model_copy(update={"max_steps": steps, "stop_at": stop_at})
    encoded = [opened.encoder.edit(*edit) for edit in EDITS[kind]]
    routed = opened.routed
    return train_block(routed.base, routed.tuner, encoded, training, rank=4, scale=4.0, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_block_gives_the_answers_asked_for_and_the_base_stays_as_it_was(
    pico: Pico, kind: str
) -> None:
    opened = pico(kind)
    weights = {name: value.clone() for name, value in opened.routed.base.model.state_dict().items()}
    block = trained(opened, kind)
    assert len(block.losses) == 80
    opened.routed.blocks.put("new", block.slices)
    prompts = [opened.encoder.prompt(prompt) for prompt, _ in EDITS[kind]]
    assert opened.inference.answers(prompts, ["new", "new"], [16, 16]) == [
        target for _, target in EDITS[kind]
    ]
    now = opened.routed.base.model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in weights.items())


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_llama"])
def test_what_is_not_wanted_becomes_unlikely_and_the_target_is_learnt_all_the_same(
    pico: Pico, kind: str
) -> None:
    opened = pico(kind)
    base, wanted = opened.routed.base, [opened.encoder.edit(*edit) for edit in EDITS[kind]]
    training = opened.recipe.training.model_copy(update={"max_steps": 80, "stop_at": None})
    first = []

    def chosen(name: str, *more: EncodedEdit) -> list[int]:
        """The first choices before the last token of each prompt, by a block that learns `more` too."""
        block = train_block(base, opened.routed.tuner, [*wanted, *more], training, rank=4, scale=4.0, seed=0)
        first.append(block.losses[0])
        opened.routed.blocks.put(name, block.slices)
        cut = [EncodedEdit(edit.prompt_ids[:-1], edit.target_ids[:1]) for edit in wanted]
        scores = opened.inference.scores([*wanted, *cut], [name] * 4)
        assert all(score.right == len(score.choices) for score in scores[:2]), "the targets are learnt"
        return [score.choices[0] for score in scores[2:]]

    plain = chosen("plain")
    unwanted = [
        EncodedEdit(edit.prompt_ids[:-1], (token,), wanted=False)
        for edit, token in zip(wanted, plain, strict=True)
    ]
    new = chosen("new", *unwanted)
    assert all(one != other for one, other in zip(plain, new, strict=True))
    assert first[0] == pytest.approx(first[1]), "what is shown is the loss of the targets"


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_a_function_of_its_edits_and_seed(pico: Pico, kind: str) -> None:
    opened = pico(kind)
    first = trained(opened, kind, steps=3)
    trained(opened, kind, steps=1, seed=9)
    torch.manual_seed(123)
    again, other = trained(opened, kind, steps=3), trained(opened, kind, steps=3, seed=1)
    for name, piece in first.slices.items():
        np.testing.assert_array_equal(piece.A, again.slices[name].A)
        np.testing.assert_array_equal(piece.B, again.slices[name].B)
        assert not np.array_equal(piece.A, other.slices[name].A)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_a_is_that_of_its_seed_and_the_block_answers_in_half_precision(
    pico: Pico, kind: str
) -> None:
    opened = pico(kind)
    routed, training = opened.routed, opened.recipe.training
    training = training.model_copy(update={"max_steps": 120, "stop_at": 0.95})
    encoded = [opened.encoder.edit(*edit) for edit in EDITS[kind]]
    block = train_block(
        routed.base,
        routed.tuner,
        encoded,
        training,
        rank=8,
        scale=8.0,
        seed=5,
        frozen_a=True,
        store_dtype="float16",
    )
    for name, piece in block.slices.items():
        assert (piece.seed, piece.A.dtype, piece.B.dtype) == (5, np.float32, np.float16)
        np.testing.assert_array_equal(piece.A, random_projection(5, name, 8, piece.A.shape[1]))
        assert piece.B.any()
    routed.blocks.put("new", block.slices)
    prompts = [opened.encoder.prompt(prompt) for prompt, _ in EDITS[kind]]
    assert opened.inference.answers(prompts, ["new", "new"], [16, 16]) == [
        target for _, target in EDITS[kind]
    ]


def test_how_a_block_is_stored_rounds_what_was_trained_and_changes_nothing_else(pico: Pico) -> None:
    opened = pico("pico_llama")
    routed, training = opened.routed, opened.recipe.training.model_copy(update={"max_steps": 5})
    encoded = [opened.encoder.edit(*edit) for edit in EDITS["pico_llama"]]
    single, half, byte, drawn = (
        train_block(
            routed.base,
            routed.tuner,
            encoded,
            training,
            rank=4,
            scale=4.0,
            seed=0,
            frozen_a=frozen,
            store_dtype=dtype,
        )
        for dtype, frozen in (("float32", False), ("float16", False), ("int8", False), ("int8", True))
    )
    assert single.losses == half.losses == byte.losses
    for name, piece in single.slices.items():
        np.testing.assert_array_equal(piece.A.astype(np.float16), half.slices[name].A)
        np.testing.assert_array_equal(piece.B.astype(np.float16), half.slices[name].B)
        np.testing.assert_array_equal(rounded(np.asarray(piece.A, np.float32), "A"), byte.slices[name].A)
        np.testing.assert_array_equal(rounded(np.asarray(piece.B, np.float32), "B"), byte.slices[name].B)
        assert byte.slices[name].in_int8 and not half.slices[name].in_int8
        in_both = drawn.slices[name]
        np.testing.assert_array_equal(in_both.A, random_projection(0, name, 4, in_both.A.shape[1]))
        np.testing.assert_array_equal(in_both.B, rounded(np.asarray(in_both.B, np.float32), "B"))
        assert in_both.nbytes == in_both.B.size + 4 * 4


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2"])
def test_the_loss_is_that_of_transformers_with_the_prompt_masked(pico: Pico, kind: str) -> None:
    opened = pico(kind)
    base = opened.routed.base
    encoded = [opened.encoder.edit(*edit) for edit in EDITS[kind]]
    batch = target_batch(base, encoded)
    ours = target_losses(base, batch).mean()
    total, tokens = 0.0, 0
    for edit in encoded:
        if base.kind is ModelKind.CAUSAL:
            ids = torch.tensor([[*edit.prompt_ids, *edit.target_ids]])
            labels = torch.tensor([[*[-100] * len(edit.prompt_ids), *edit.target_ids]])
        else:
            ids, labels = torch.tensor([edit.prompt_ids]), torch.tensor([edit.target_ids])
        total += base.model(input_ids=ids, labels=labels).loss.item() * len(edit.target_ids)
        tokens += len(edit.target_ids)
    assert ours.item() == pytest.approx(total / tokens, rel=1e-4)


def test_the_scheduler_of_the_recipe_sets_the_learning_rate() -> None:
    section = TrainingSection.model_validate(
        {
            "optimizer": {"name": "SGD", "lr": 0.8},
            "lr_scheduler": {"name": "StepLR", "step_size": 2, "gamma": 0.5},
        }
    )
    parameter = torch.ones(1, requires_grad=True)
    schedule = Schedule(section, [parameter])
    rates = []
    for _ in range(5):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        (parameter**2).sum().backward()
        schedule.step(parameter.item())
    assert rates == [0.8, 0.8, 0.4, 0.4, 0.2]


def test_reduce_on_plateau_gets_the_loss() -> None:
    section = TrainingSection.model_validate(
        {
            "optimizer": {"name": "SGD", "lr": 1.0},
            "lr_scheduler": {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.1},
        }
    )
    parameter = torch.ones(1, requires_grad=True)
    schedule = Schedule(section, [parameter])
    for _ in range(3):
        parameter.grad = torch.zeros(1)
        schedule.step(1.0)
    assert schedule.optimizer.param_groups[0]["lr"] < 1.0


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"optimizer": {"name": "adam"}},
            r"training.optimizer.name: adam is not a class of PyTorch.*did you mean Adam\?",
        ),
        ({"optimizer": {"name": "Adam", "lrr": 1}}, "training.optimizer: Adam does not take these arguments"),
        ({"lr_scheduler": {"name": "StepLr", "step_size": 2}}, "did you mean StepLR"),
        ({"lr_scheduler": {"name": "StepLR"}}, "training.lr_scheduler: StepLR does not take"),
        (
            {"lr_scheduler": {"name": "LambdaLR", "lr_lambda": "x"}},
            "LambdaLR is not a class of PyTorch that a recipe can use",
        ),
    ],
)
def test_wrong_names_and_arguments_are_recipe_errors(training: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_training_section(TrainingSection.model_validate(training))


def test_training_stops_once_every_target_token_is_likely_enough(pico: Pico) -> None:
    opened = pico("pico_bert")
    whole = trained(opened, "pico_bert")
    stopped = trained(opened, "pico_bert", stop_at=0.9)
    assert 0 < len(stopped.losses) < len(whole.losses)
    assert stopped.losses == whole.losses[: len(stopped.losses)]
    opened.routed.blocks.put("new", stopped.slices)
    with opened.routed.using(["new", "new"]), torch.no_grad():
        batch = target_batch(opened.routed.base, [opened.encoder.edit(*edit) for edit in EDITS["pico_bert"]])
        chances = target_logits(opened.routed.base, batch).softmax(-1).gather(-1, batch.targets.unsqueeze(-1))
    assert chances.min() >= 0.9
