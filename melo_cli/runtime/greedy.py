"""Greedy generation: of a model's generation settings, only its special tokens are used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import pad_prompts


def greedy_options(base: BaseModel, max_new_tokens: int) -> dict[str, Any]:
    """Settings of transformers' `GenerationConfig`; a model's own sampling would change answers.

    Args:
        base: the base model, whose special tokens are used.
        max_new_tokens: stop token included.

    Returns:
        Keyword arguments of `GenerationConfig`.
    """
    own = base.model.generation_config
    return {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "pad_token_id": base.special.pad,
        "bos_token_id": own.bos_token_id,
        "eos_token_id": list(base.special.stops) or None,
        "decoder_start_token_id": own.decoder_start_token_id,
        "forced_bos_token_id": own.forced_bos_token_id,
        "suppress_tokens": own.suppress_tokens,
        "begin_suppress_tokens": own.begin_suppress_tokens,
    }


def room_after(base: BaseModel, length: int) -> int:
    """How many tokens may follow a prompt; the last one is not read again and needs no position.

    Args:
        base: the base model.
        length: tokens of the prompt; an encoder-decoder's answer has positions of its own.

    Returns:
        A number of tokens; `sys.maxsize` for a classifier and for a model without a limit.
    """
    if base.kind is ModelKind.CLASSIFIER or base.max_length is None:
        return sys.maxsize
    return base.max_length if base.kind is ModelKind.SEQ2SEQ else base.max_length - length + 1


@torch.no_grad()
def write_greedily(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """Generate the answers of a batch greedily.

    Args:
        base: the base model, under whatever blocks are in force.
        prompts: token ids of each prompt, without padding.
        max_new_tokens: tokens of each answer at most, stop token included.
        streamer: gets each token when it is chosen; the batch must have one prompt.

    Returns:
        The token ids of each answer, up to the stop token, which is left out.
    """
    inputs = pad_prompts(base, prompts)
    options = GenerationConfig(**greedy_options(base, max_new_tokens))
    output = base.generate(**inputs, generation_config=options, streamer=streamer)
    start = 1 if base.kind is ModelKind.SEQ2SEQ else inputs["input_ids"].shape[1]
    return [until_stop(base, row[start:].tolist()) for row in output]


def until_stop(base: BaseModel, ids: list[int]) -> list[int]:
    """An answer's tokens up to the first that ends it."""
    length = next((i for i, token in enumerate(ids) if token in base.special.stops), len(ids))
    return ids[:length]
