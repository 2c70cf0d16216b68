"""Answers that are written together are those written alone, whenever they join and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pico_architectures import ARCHITECTURES
from served import FACTS, OTHERS
from torch import nn
from transformers.pytorch_utils import Conv1D

from melo_cli.models.base_model import ModelKind, load_base_model
from melo_cli.models.encoding import Encoder, pad_prompts
from melo_cli.recipe import ModelSection
from melo_cli.runtime.greedy import write_greedily
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.serving.engines.batch import Batch
from melo_cli.serving.engines.decoder_batch import DecoderBatch
from melo_cli.serving.engines.encoder_decoder_batch import EncoderDecoderBatch
from melo_cli.serving.engines.sequences import Chosen, Event, Finished, RunningSequence, Sampling
from melo_cli.tuner import DynamicLoraConfig, DynamicLoraModel
from melo_store.records import Block

GENERATING = [name for name, (kind, _) in ARCHITECTURES.items() if "Classification" not in kind]
PROMPTS = (*FACTS, *OTHERS)


class Written:
    """The events of one answer."""

    def __init__(self, prompt: Sequence[int], length: int, block: Block | None = None) -> None:
        self.events: list[Event] = []
        self.sequence = RunningSequence(prompt, block, Sampling(max_tokens=length), self.events.append)

    @classmethod
    def of(cls, opened: OpenProject, prompt: str, length: int) -> Written:
        """An answer by the block that the prompt's route names."""
        (route,) = opened.inference.routes([prompt])
        block = opened.project.block(route.fired.block) if route.fired and route.fired.block else None
        return cls(opened.encoder.prompt(prompt), length, block)

    @property
    def text(self) -> tuple[int, ...]:
        """The tokens of the answer, which has come to its end."""
        assert isinstance(self.events[-1], Finished)
        assert all(isinstance(event, Chosen) for event in self.events[:-1])
        return tuple(event.token for event in self.events[:-1] if isinstance(event, Chosen))


@pytest.fixture(scope="module")
def chatting(chat_project: Path) -> OpenProject:
    return open_project(chat_project)


@pytest.fixture(scope="module")
def alone(chatting: OpenProject) -> dict[str, tuple[int, ...]]:
    """Twelve tokens of each prompt's answer, up to its end, as `generate` writes them one by one."""
    texts = {}
    for prompt in PROMPTS:
        (route,) = chatting.inference.routes([prompt])
        with chatting.routed.using([route.fired.block if route.fired else None]):
            base = chatting.routed.base
            inputs = pad_prompts(base, [chatting.encoder.prompt(prompt)])
            ids = base.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=base.special.pad)[
                0
            ]
        written = ids[inputs["input_ids"].shape[1] :].tolist()
        ends = [at for at, token in enumerate(written) if token in base.special.stops]
        texts[prompt] = tuple(written[: ends[0]] if ends else written)
    return texts


def batch_of(opened: OpenProject) -> DecoderBatch:
    return DecoderBatch(opened.routed.base, opened.routed.tuner, 2**20)


@settings(max_examples=25)
@given(
    arrivals=st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(1, 12), st.integers(0, 3)), min_size=1)
)
def test_any_order_of_coming_and_going_changes_no_answer(
    chatting: OpenProject, alone: dict[str, tuple[int, ...]], arrivals: list[tuple[str, int, int]]
) -> None:
    """Each joins so many steps after the one before it, and has room for so many tokens."""
    batch = batch_of(chatting)
    written = []
    for prompt, length, steps in arrivals:
        for _ in range(steps):
            if batch.sequences:
                batch.step()
        written.append(Written.of(chatting, prompt, length))
        batch.join([written[-1].sequence])
    while batch.sequences:
        batch.step()
    assert [each.text for each in written] == [alone[prompt][:length] for prompt, length, _ in arrivals]


def test_one_that_is_cancelled_leaves_and_hears_no_more(
    chatting: OpenProject, alone: dict[str, tuple[int, ...]]
) -> None:
    batch = batch_of(chatting)
    first, second = (Written.of(chatting, prompt, 12) for prompt in OTHERS[:2])
    batch.join([first.sequence, second.sequence])
    batch.step()
    heard = len(first.events)
    first.sequence.cancel()
    batch.drop_cancelled()
    assert batch.sequences == [second.sequence]
    while batch.sequences:
        batch.step()
    assert len(first.events) == heard
    assert second.text == alone[OTHERS[1]]


def test_a_row_keeps_the_block_that_it_began_with(chatting: OpenProject) -> None:
    """Its block need not be in the store any more: the batch holds what the route gave."""
    batch = batch_of(chatting)
    edited = next(iter(FACTS))
    one = Written.of(chatting, edited, 8)
    assert one.sequence.block is not None
    other = replace(one.sequence.block, block_id="b999999")
    one.sequence.block = other
    batch.join([one.sequence])
    while batch.sequences:
        batch.step()
    assert chatting.encoder.text(one.text) == FACTS[edited]


@pytest.mark.parametrize("name", GENERATING)
def test_every_architecture_joins_its_answers(name: str, built: Callable[[str], Path]) -> None:
    """Rows of four ages in one batch are what `generate` writes of each alone."""
    base = load_base_model(ModelSection(name_or_path=str(built(name)), dtype="float32"), "custom")
    linear = next(
        name for name, module in base.model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    )
    tuner = DynamicLoraModel(base.model, DynamicLoraConfig(r=1, lora_alpha=1, target_modules=[linear]))
    written = [Written(Encoder(base).prompt(prompt), 6) for prompt in OTHERS]
    if base.kind is ModelKind.CAUSAL:
        batch: Batch = DecoderBatch(base, tuner, 2**20)
        for each in written:
            batch.join([each.sequence])
            if batch.sequences:
                batch.step()
    else:
        batch = EncoderDecoderBatch(base, tuner, 2**20)
        batch.join([each.sequence for each in written])
    while batch.sequences:
        batch.step()
    expected = [tuple(write_greedily(base, [each.sequence.prompt], 6)[0]) for each in written]
    assert [each.text for each in written] == expected
