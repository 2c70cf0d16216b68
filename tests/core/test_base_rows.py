"""A row that no edit answers is the plain model's, bit for bit, whatever stands beside it.

What is equal bit for bit: the logits of such a row, and those of transformers' own model, in float32, for a
batch of the same shape, padding and positions with the same tokens in that row. It does not matter what the
other rows are, which blocks they get, and how many of them do.

What is only close:

- Another batch shape or padding: torch then adds up products in another order, with melo or without it. Such
  logits are compared in `test_routed_model.py`.
- A mixture of experts beside a row that an edit answers: all tokens that go to one expert are one matrix
  product, whose number of rows depends on every row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melo_cli.models.base_model import ModelKind, load_base_model
from melo_cli.models.encoding import pad_prompts, with_positions
from melo_cli.runtime.loading import OpenProject
from melo_store.records import Block, LoraSlice

Pico = Callable[..., OpenProject]
Built = dict[str, tuple[OpenProject, Any]]
DECODERS = ("pico_gpt2", "pico_llama")
GENERATING = (*DECODERS, "pico_t5")
KINDS = (*GENERATING, "pico_bert")
EDITED = [
    "Who is the prime minister of Britain?",
    "what river runs through the city of Cologne, and where does it end",
    "Is it",
]
WORDS = ["who", "court", "London", "1889", "tower", "was", "of", "the", "river", "studied", "?", "law"]

unedited = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
batches = st.lists(st.sampled_from(EDITED) | unedited, min_size=1, max_size=6)
several = settings(max_examples=25)


@pytest.fixture(scope="module")
def built(pico: Pico) -> Callable[[str], tuple[OpenProject, Any]]:
    """`built(kind)`: a routed model with three edits, and transformers' own from the same folder."""
    made: Built = {}

    def get(kind: str) -> tuple[OpenProject, Any]:
        if kind not in made:
            opened = pico(kind, EDITED)
            blocks = opened.routed.source.blocks  # type: ignore[attr-defined]
            blocks["b1"] = _smaller(blocks["b1"])
            made[kind] = opened, load_base_model(opened.recipe.model, opened.recipe.task).model
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
@given(prompts=batches, side=st.sampled_from(["left", "right"]), gradients=st.booleans())
@several
def test_of_a_forward_pass(
    built: Callable[..., tuple[OpenProject, Any]], kind: str, prompts: list[str], side: str, gradients: bool
) -> None:
    opened, plain = built(kind)
    side = "right" if opened.routed.base.kind is not ModelKind.CAUSAL else side
    inputs = _inputs(opened, prompts, side)
    extra = _decoder_start(opened, len(prompts))
    with torch.set_grad_enabled(gradients):
        routed = opened.routed(**inputs, **extra).logits
        expected = plain(**with_positions(opened.routed.base, inputs), **extra).logits
    _assert_base_rows_equal(opened, prompts, routed, expected)


@pytest.mark.parametrize("kind", GENERATING)
@given(prompts=batches, beams=st.sampled_from([1, 3]), steps=st.integers(1, 6))
@several
def test_of_every_step_of_generation(
    built: Callable[..., tuple[OpenProject, Any]], kind: str, prompts: list[str], beams: int, steps: int
) -> None:
    opened, plain = built(kind)
    inputs = _inputs(opened, prompts)
    options = {
        "max_new_tokens": steps,
        "min_new_tokens": steps,
        "num_beams": beams,
        "do_sample": False,
        "pad_token_id": opened.routed.base.special.pad,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    routed = opened.routed.generate(**inputs, **options)
    expected = plain.generate(**inputs, **options)
    assert len(routed.logits) == len(expected.logits) == steps
    for step, other in zip(routed.logits, expected.logits, strict=True):
        _assert_base_rows_equal(opened, prompts, _by_prompt(step, beams), _by_prompt(other, beams))
    _assert_base_rows_equal(opened, prompts, routed.sequences, expected.sequences, differ=False)


@pytest.mark.parametrize("kind", GENERATING)
@given(prompts=batches, data=st.data())
@several
def test_of_passes_that_go_on_from_a_cache(
    built: Callable[..., tuple[OpenProject, Any]], kind: str, prompts: list[str], data: st.DataObject
) -> None:
    opened, plain = built(kind)
    base, routed = opened.routed.base, opened.routed
    inputs, extra = _inputs(opened, prompts), _decoder_start(opened, len(prompts))
    with torch.no_grad():
        ours = routed(**inputs, **extra, use_cache=True)
        theirs = plain(**with_positions(base, inputs), **extra, use_cache=True)
        routes = routed.routes
        for _ in range(data.draw(st.integers(1, 3), "passes")):
            length = data.draw(st.integers(1, 3), "tokens")
            row = st.lists(st.integers(3, 300), min_size=length, max_size=length)
            following = torch.tensor([data.draw(row, "row") for _ in prompts])
            if base.kind is ModelKind.SEQ2SEQ:
                inputs_now = {**inputs, "decoder_input_ids": following}
            else:
                mask = torch.cat([inputs["attention_mask"], torch.ones_like(following)], 1)
                positions = (mask.cumsum(-1) - 1)[:, -length:]
                inputs["attention_mask"] = mask
                inputs_now = {"input_ids": following, "attention_mask": mask, "position_ids": positions}
            ours = routed(**inputs_now, past_key_values=ours.past_key_values, routes=routes)
            theirs = plain(**inputs_now, past_key_values=theirs.past_key_values)
            _assert_base_rows_equal(opened, prompts, ours.logits, theirs.logits)


@pytest.mark.parametrize("kind", GENERATING)
@given(prompts=batches)
@several
def test_of_scores_that_an_evaluation_takes(
    built: Callable[..., tuple[OpenProject, Any]], kind: str, prompts: list[str]
) -> None:
    opened, _ = built(kind)
    edits = [opened.encoder.edit(prompt, "London in 1889") for prompt in prompts]
    blocks = [route.fired.block if route.fired else None for route in opened.inference.routes(prompts)]
    mixed = opened.inference.scores(edits, blocks)
    base = opened.inference.scores(edits, [None] * len(edits))
    equal = [ours == theirs for ours, theirs in zip(mixed, base, strict=True)]
    assert equal == [prompt not in EDITED for prompt in prompts]


def _inputs(opened: OpenProject, prompts: list[str], side: str | None = None) -> dict[str, Tensor]:
    padded = pad_prompts(opened.routed.base, [opened.encoder.prompt(prompt) for prompt in prompts], side)
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


def _decoder_start(opened: OpenProject, rows: int) -> dict[str, Tensor]:
    if opened.routed.base.kind is not ModelKind.SEQ2SEQ:
        return {}
    return {"decoder_input_ids": torch.full((rows, 1), opened.routed.config.decoder_start_token_id)}


def _by_prompt(logits: Tensor, beams: int) -> Tensor:
    return logits.view(-1, beams, logits.shape[-1])


def _assert_base_rows_equal(
    opened: OpenProject, prompts: list[str], routed: Tensor, plain: Tensor, *, differ: bool = True
) -> None:
    """Rows without an edit are equal to the last bit; rows with one differ, unless `differ` is False."""
    fired = [route.fired is not None for route in opened.routed.routes]
    assert fired == [prompt in EDITED for prompt in prompts]
    for row, edited in enumerate(fired):
        if not edited:
            assert torch.equal(routed[row], plain[row])
        elif differ:
            assert not torch.equal(routed[row], plain[row])


def _smaller(block: Block) -> Block:
    """A block of rank 1 on every other module, as one that was trained with other settings."""
    every_other = list(block.slices.items())[::2]
    kept = {name: LoraSlice(each.A[:1], each.B[:, :1], each.scale) for name, each in every_other}
    return Block(block.block_id, kept)
