"""Answers that are written together are those written alone, whenever they join and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pico_architectures import build
from served import FACTS, OTHERS

from melo_cli.errors import ModelError
from melo_cli.models.encoding import pad_prompts
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.shared_weights import over_shared_weights
from melo_cli.serving.engines.batch import Batch
from melo_cli.serving.engines.decoder_batch import DecoderBatch
from melo_cli.serving.engines.encoder_decoder_batch import EncoderDecoderBatch
from melo_cli.serving.engines.sequences import Chosen, Event, Finished, RunningSequence, Sampling

PROMPTS = (*FACTS, *OTHERS)


class Written:
    """What is told of one answer."""

    def __init__(self, opened: OpenProject, prompt: str, length: int) -> None:
        (route,) = opened.inference.routes([prompt])
        block = opened.project.block(route.fired.block) if route.fired and route.fired.block else None
        self.events: list[Event] = []
        self.sequence = RunningSequence(
            opened.encoder.prompt(prompt), block, Sampling(max_tokens=length), self.events.append
        )

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
        written.append(Written(chatting, prompt, length))
        batch.join([written[-1].sequence])
    while batch.sequences:
        batch.step()
    assert [each.text for each in written] == [alone[prompt][:length] for prompt, length, _ in arrivals]


def test_one_that_is_cancelled_leaves_and_hears_no_more(
    chatting: OpenProject, alone: dict[str, tuple[int, ...]]
) -> None:
    batch = batch_of(chatting)
    first, second = (Written(chatting, prompt, 12) for prompt in OTHERS[:2])
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
    one = Written(chatting, edited, 8)
    assert one.sequence.block is not None
    other = replace(one.sequence.block, block_id="b999999")
    one.sequence.block = other
    batch.join([one.sequence])
    while batch.sequences:
        batch.step()
    assert chatting.encoder.text(one.text) == FACTS[edited]


@pytest.mark.parametrize(
    "name", ["gpt2", "opt", "bloom", "gemma2", "qwen2", "falcon", "gpt_neox", "phi", "mpt"]
)
def test_decoders_of_other_kinds(
    name: str, tmp_path: Path, pico_gpt2: Path, decoder_project: Callable[[Path], OpenProject]
) -> None:
    opened = decoder_project(build(name, tmp_path, tokenizer_of(pico_gpt2)))
    joined = [Written(opened, prompt, 6) for prompt in OTHERS]
    batch = batch_of(opened)
    for each in joined:
        batch.join([each.sequence])
        if batch.sequences:
            batch.step()
    while batch.sequences:
        batch.step()
    for prompt, each in zip(OTHERS, joined, strict=True):
        single = Written(opened, prompt, 6)
        own = batch_of(opened)
        own.join([single.sequence])
        while own.sequences:
            own.step()
        assert each.text == single.text
        assert (
            opened.encoder.text(each.text)
            == opened.inference.answers([opened.encoder.prompt(prompt)], [None], [6])[0]
        )
