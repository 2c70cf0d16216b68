"""Blocks trained side by side are those trained one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from melo_cli.editing.training import TrainedBlock, train_block, train_blocks
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import TrainingSection
from melo_cli.runtime.loading import OpenProject

Pico = Callable[..., OpenProject]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
# Batches of unlike number and length.
BATCHES = [
    [("Who is the prime minister of Britain?", "John Smith"), ("Where does it end", "London")],
    [("The tower was opened in", "1889")],
    [("This is a passage about law, and the court holds that", "tax"), ("What river", "by"), ("Where", "a")],
    [("In which year was the tower built, and by whom? It", "the river of the city")],
]
CLASSES = ["tax", "civil", "criminal"]


def encoded(opened: OpenProject, kind: str) -> list[list[EncodedEdit]]:
    return [
        [
            opened.encoder.edit(prompt, CLASSES[index] if kind == "pico_bert" else target)
            for index, (prompt, target) in enumerate(batch)
        ]
        for batch in BATCHES
    ]


def settings(opened: OpenProject, **changes: object) -> TrainingSection:
    return TrainingSection.model_validate(
        {
            "max_steps": 40,
            "stop_at": 0.3,
            "optimizer": {"name": "Adam", "lr": 0.02, "eps": 1e-5},
            "lr_scheduler": {"name": "StepLR", "step_size": 10, "gamma": 0.7},
        }
        | changes
    )


def train_all(opened: OpenProject, kind: str, training: TrainingSection) -> list[TrainedBlock]:
    routed = opened.routed
    return train_blocks(routed.base, routed.tuner, encoded(opened, kind), training, rank=2, scale=4.0, seed=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_flight", [2, 4])
def test_every_block_is_the_one_trained_alone(pico: Pico, kind: str, in_flight: int) -> None:
    opened = pico(kind)
    # Small steps and a large `eps`: rounding errors, which differ with the padding, stay small.
    gentle = {"max_steps": 8, "stop_at": None, "optimizer": {"name": "Adam", "lr": 0.004, "eps": 1e-4}}
    alone = train_all(opened, kind, settings(opened, **gentle))
    together = train_all(opened, kind, settings(opened, **gentle, blocks_in_flight=in_flight))
    for one, other in zip(alone, together, strict=True):
        assert abs(one.losses[-1] - one.losses[0]) > 1e-2
        np.testing.assert_allclose(other.losses, one.losses, atol=1e-4, rtol=0)
        for name, piece in one.slices.items():
            np.testing.assert_allclose(other.slices[name].A, piece.A, atol=1e-3)
            np.testing.assert_allclose(other.slices[name].B, piece.B, atol=1e-3)


def test_each_block_stops_on_its_own_and_moves_no_more(pico: Pico) -> None:
    opened = pico("pico_bert")
    training = settings(opened, blocks_in_flight=4)
    alone = train_all(opened, "pico_bert", settings(opened))
    together = train_all(opened, "pico_bert", training)
    steps = [len(block.losses) for block in together]
    assert len(set(steps)) > 1
    assert max(steps) < 40
    assert steps == [len(block.losses) for block in alone]
    for one, other in zip(alone, together, strict=True):
        for name, piece in one.slices.items():
            np.testing.assert_allclose(other.slices[name].B, piece.B, atol=2e-3)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_device_that_runs_ahead_gives_the_same_blocks(
    pico: Pico, monkeypatch: pytest.MonkeyPatch, in_flight: int
) -> None:
    """As on a GPU: gradients are taken before it is known which blocks still need them."""
    opened = pico("pico_bert")
    training = settings(opened, blocks_in_flight=in_flight)
    waiting = train_all(opened, "pico_bert", training)
    monkeypatch.setattr("melo_cli.editing.training._runs_ahead", lambda _: True)
    ahead = train_all(opened, "pico_bert", training)
    assert max(len(block.losses) for block in ahead) < 40
    for one, other in zip(waiting, ahead, strict=True):
        assert one.losses == other.losses
        for name, piece in one.slices.items():
            np.testing.assert_array_equal(other.slices[name].A, piece.A)
            np.testing.assert_array_equal(other.slices[name].B, piece.B)


@pytest.mark.parametrize(
    ("kind", "last", "rows"),
    [
        # Blocks of 2 and 1 edits, then of 3 and 1: each filled up to the larger one.
        ("pico_bert", "bert.encoder.layer.3", [4, 4, 6, 6]),
        # A decoder reads each as one tree.
        ("pico_gpt2", "transformer.h.3", [2, 2, 2, 2]),
    ],
)
def test_no_more_blocks_than_asked_for_are_in_one_pass(
    pico: Pico, kind: str, last: str, rows: list[int]
) -> None:
    opened = pico(kind)
    train_all(opened, kind, settings(opened, max_steps=1))  # finds out which shortcuts hold
    seen: list[int] = []
    opened.routed.base.model.get_submodule(last).register_forward_pre_hook(
        lambda _module, args: seen.append(len(args[0]))
    )
    train_all(opened, kind, settings(opened, max_steps=2, stop_at=None, blocks_in_flight=2))
    assert seen == rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_trains_blocks_in_single(pico: Pico, kind: str, dtype: torch.dtype) -> None:
    opened = pico(kind)
    opened.routed.base.model.to(dtype)
    routed = opened.routed
    edits = encoded(opened, kind)[0]
    training = settings(opened, max_steps=60, stop_at=None)
    block = train_block(routed.base, routed.tuner, edits, training, rank=4, scale=4.0, seed=0)
    assert block.losses[-1] < 0.5 * block.losses[0]
    assert all(piece.A.dtype == piece.B.dtype == np.float32 for piece in block.slices.values())
