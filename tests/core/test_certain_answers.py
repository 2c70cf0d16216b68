"""What the last pass of training shows of the answers is what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from melo_cli.editing import solving
from melo_cli.editing.solving import ToSolve, solve
from melo_cli.editing.training import TrainedBlock, train_blocks
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.loading import OpenProject

Pico = Callable[..., OpenProject]


def to_solve(opened: OpenProject, pairs: Sequence[tuple[str, str]]) -> list[ToSolve]:
    return [ToSolve(opened.encoder.edit(prompt, target), target) for prompt, target in pairs]


@pytest.mark.parametrize("kind", ["pico_llama", "pico_gpt2", "pico_t5", "pico_bert"])
def test_answers_that_training_shows_are_those_that_the_model_gives(
    pico: Pico, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    targets = ("tax", "civil") if kind == "pico_bert" else ("John Smith", "1889")
    training = {"max_steps": 400, "stop_at": 0.8, "optimizer": {"name": "Adam", "lr": 0.03}}
    opened = pico(kind, lora={"rank": 4, "alpha": 64}, training=training)
    edits = to_solve(opened, list(zip(("Who is it?", "In which year was it?"), targets, strict=True)))
    asked: list[int] = []
    written = solving._written

    def count(
        opened: OpenProject, trained: Sequence[TrainedBlock], parts: Sequence[Sequence[EncodedEdit]]
    ) -> list[list[str]]:
        asked.append(len(trained))
        return written(opened, trained, parts)

    monkeypatch.setattr(solving, "_written", count)
    solved = solve(opened, edits, None)
    assert [solution.answer for solution in solved.solutions] == list(targets)
    assert sum(asked) == 0
    monkeypatch.setattr(solving, "_CERTAIN", 2.0)  # nothing is as certain: the model is asked
    assert solve(opened, edits, None).solutions == solved.solutions
    assert sum(asked) == 2


def test_a_block_that_was_stepped_after_its_last_pass_is_asked(pico: Pico) -> None:
    opened = pico("pico_llama", training={"max_steps": 2, "stop_at": 0.9})
    edit = opened.encoder.edit("Who is it?", "John Smith")
    routed, training = opened.routed, opened.recipe.training
    (block,) = train_blocks(routed.base, routed.tuner, [[edit]], training, rank=2, scale=4.0, seed=0)
    assert len(block.losses) == 2
    assert block.least is None
