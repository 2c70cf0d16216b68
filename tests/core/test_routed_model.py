"""A routed model answers each row as that row would be answered alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melo_cli.errors import PromptError
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import pad_prompts
from melo_cli.runtime.loading import OpenProject
from melo_cli.tuner.layer import ActiveBlocks, SliceBank, add_blocks

Pico = Callable[..., OpenProject]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
GENERATING = KINDS[:3]
PROMPTS = [
    "Who is the prime minister of Britain?",
    "Where was John Smith born",
    "The court holds that",
    "what river runs through the city of Cologne, and where does it end",
]
EDITED = [PROMPTS[0], PROMPTS[3]]
BLOCKS = ["b0", None, None, "b1"]


def batch(opened: OpenProject, prompts: list[str], side: str) -> dict[str, Tensor]:
    padded = pad_prompts(opened.routed.base, [opened.encoder.prompt(prompt) for prompt in prompts], side)
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


def logits(opened: OpenProject, inputs: dict[str, Tensor]) -> Tensor:
    """What the model says next, `[batch, vocabulary or classes]`, at each row's last prompt token."""
    extra = {}
    if opened.routed.base.kind is ModelKind.SEQ2SEQ:
        start = opened.routed.config.decoder_start_token_id
        extra["decoder_input_ids"] = torch.full((len(inputs["input_ids"]), 1), start)
    scores: Tensor = opened.routed(**inputs, **extra).logits
    if scores.dim() == 2 or opened.routed.base.kind is ModelKind.SEQ2SEQ:
        return scores.reshape(len(scores), -1)
    positions = torch.arange(scores.shape[1])
    last = (positions * inputs["attention_mask"]).amax(-1)
    return scores[torch.arange(len(scores)), last]


def fired(opened: OpenProject) -> list[str | None]:
    return [route.fired.block if route.fired else None for route in opened.routed.routes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_32_routes_and_answers_as_each_prompt_alone(pico: Pico, kind: str, side: str) -> None:
    opened = pico(kind, EDITED)
    alone = [logits(opened, batch(opened, [prompt], side)) for prompt in PROMPTS]
    together = logits(opened, batch(opened, PROMPTS * 8, side))
    assert fired(opened) == BLOCKS * 8
    torch.testing.assert_close(together, torch.cat(alone).repeat(8, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_the_base_are_the_plain_model_and_routed_rows_are_not(pico: Pico, kind: str) -> None:
    opened = pico(kind, EDITED)
    inputs = batch(opened, PROMPTS, "left")
    routed = logits(opened, inputs)
    opened.routed.source.laid.clear()  # type: ignore[attr-defined]
    plain = logits(opened, inputs)
    differs = (routed - plain).abs().amax(-1) > 1e-3
    assert differs.tolist() == [block is not None for block in BLOCKS]
    assert torch.equal(routed[1:3], plain[1:3])


@pytest.mark.parametrize("kind", GENERATING)
@pytest.mark.parametrize("side", ["left", "right"])
def test_generation_of_a_mixed_batch_is_that_of_each_prompt_alone(pico: Pico, kind: str, side: str) -> None:
    opened = pico(kind, EDITED)
    alone = [_written(opened, [prompt], side)[0] for prompt in PROMPTS]
    assert _written(opened, PROMPTS, side) == alone
    opened.routed.source.laid.clear()  # type: ignore[attr-defined]
    plain = _written(opened, PROMPTS, side)
    assert [a != b for a, b in zip(plain, alone, strict=True)] == [block is not None for block in BLOCKS]


@pytest.mark.parametrize("kind", GENERATING)
def test_generation_with_cache_and_without_gives_the_same_tokens(pico: Pico, kind: str) -> None:
    opened = pico(kind, EDITED)
    inputs = batch(opened, PROMPTS, "left")
    cached = opened.routed.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=True)
    uncached = opened.routed.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("kind", GENERATING)
def test_every_beam_of_a_prompt_keeps_its_route(pico: Pico, kind: str) -> None:
    opened = pico(kind, EDITED)
    beams = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6, "do_sample": False}
    together = opened.routed.generate(**batch(opened, PROMPTS, "left"), **beams)
    for row, prompt in enumerate(PROMPTS):
        alone = opened.routed.generate(**batch(opened, [prompt], "left"), **beams)
        width = min(alone.shape[1], together.shape[1])
        texts = [opened.encoder.text(ids.tolist()) for ids in together[2 * row : 2 * row + 2]]
        assert texts == [opened.encoder.text(ids.tolist()) for ids in alone]
        assert width > 0


def test_sampling_is_routed_too(pico: Pico) -> None:
    opened = pico("pico_gpt2", EDITED)
    torch.manual_seed(0)
    # At a temperature this low a sample is the routed model's first choice, and not the base's.
    sampled = opened.routed.generate(
        **batch(opened, PROMPTS, "left"),
        do_sample=True,
        temperature=1e-4,
        max_new_tokens=6,
        num_return_sequences=2,
    )
    greedy = opened.routed.generate(**batch(opened, PROMPTS, "left"), do_sample=False, max_new_tokens=6)
    assert torch.equal(sampled, greedy.repeat_interleave(2, dim=0))


def test_the_route_is_fixed_at_prefill(pico: Pico, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = pico("pico_gpt2", EDITED)
    lookups = []
    inner = opened.routed.source.nearest

    def counted(keys, k):  # type: ignore[no-untyped-def]
        lookups.append(len(keys))
        return inner(keys, k)

    monkeypatch.setattr(opened.routed.source, "nearest", counted)
    opened.routed.generate(**batch(opened, PROMPTS, "left"), max_new_tokens=8, do_sample=False)
    assert lookups == [len(PROMPTS)]


def test_a_failed_pass_leaves_no_route_behind(pico: Pico) -> None:
    opened = pico("pico_gpt2", EDITED)
    inputs = batch(opened, [PROMPTS[0]], "left")
    model = opened.routed.base.model

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with torch.no_grad():
        before = model(**inputs).logits
        hook = model.transformer.ln_f.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            opened.routed(**inputs)
        hook.remove()
        after = model(**inputs).logits
    assert torch.equal(before, after)


def test_the_key_of_a_labelled_row_is_that_of_its_prompt(pico: Pico) -> None:
    opened = pico("pico_llama", EDITED)
    encoded = opened.encoder.edit(PROMPTS[0], "an answer")
    ids = torch.tensor([[*encoded.prompt_ids, *encoded.target_ids]])
    labels = ids.clone()
    labels[:, : len(encoded.prompt_ids)] = -100
    opened.routed(ids, labels=labels)
    assert fired(opened) == ["b0"]
    opened.routed(ids)
    assert fired(opened) == [None]
    with pytest.raises(PromptError, match="a row has no prompt to route"):
        opened.routed(ids, labels=ids)


def test_a_cache_without_its_routes_is_refused(pico: Pico) -> None:
    opened = pico("pico_gpt2", EDITED)
    inputs = batch(opened, [PROMPTS[0]], "left")
    first = opened.routed(**inputs, use_cache=True)
    routes = opened.routed.routes
    following = first.logits[:, -1:].argmax(-1)
    mask = torch.ones(1, inputs["input_ids"].shape[1] + 1, dtype=torch.long)
    with pytest.raises(PromptError, match="past_key_values"):
        opened.routed(following, mask, past_key_values=first.past_key_values)
    step = opened.routed(following, mask, past_key_values=first.past_key_values, routes=routes)
    whole = opened.routed(torch.cat([inputs["input_ids"], following], 1), routes=routes)
    torch.testing.assert_close(step.logits[:, -1], whole.logits[:, -1], rtol=1e-4, atol=1e-4)


def _written(opened: OpenProject, prompts: list[str], side: str) -> list[str]:
    inputs = batch(opened, prompts, side)
    output = opened.routed.generate(**inputs, max_new_tokens=8, do_sample=False)
    start = inputs["input_ids"].shape[1] if opened.routed.base.kind is ModelKind.CAUSAL else 0
    return [opened.routed.tokenizer.decode(row[start:], skip_special_tokens=True) for row in output]


@given(
    st.lists(st.integers(-1, 2), min_size=1, max_size=7).filter(lambda rows: max(rows) >= 0),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=120)
def test_rows_in_any_order_and_number_get_their_own_block_to_the_number(
    rows: list[int], with_gradient: bool, dtype: torch.dtype
) -> None:
    # Rows in order and in equal groups take another way through the layer than all others, and so do passes
    # that a gradient is taken of.
    random = torch.Generator().manual_seed(0)
    entries = 1 + max(max(rows), 0)
    bank = SliceBank(
        torch.randn(entries, 2, 4, generator=random),
        torch.randn(entries, 3, 2, generator=random),
        torch.arange(1.0, 1.0 + entries),
    )
    x = torch.randn(len(rows), 5, 4, generator=random).to(dtype)
    plain = torch.randn(len(rows), 5, 3, generator=random).to(dtype)
    before = plain.clone()
    active = ActiveBlocks.of({"m": bank}, rows, torch.device("cpu"))
    with torch.set_grad_enabled(with_gradient):
        added = add_blocks(plain, x, "m", active)
    assert added.dtype is dtype
    for row, entry in enumerate(rows):
        if entry < 0:
            assert torch.equal(added[row], before[row])
        else:
            own = before[row] + bank.scale[entry] * x[row].float() @ bank.A[entry].T @ bank.B[entry].T
            tolerance = 1e-5 if dtype is torch.float32 else 2e-2
            torch.testing.assert_close(added[row], own.to(dtype), rtol=tolerance, atol=tolerance)
    if with_gradient:  # what a module gave may be handed out again at the next step
        assert torch.equal(plain, before)
