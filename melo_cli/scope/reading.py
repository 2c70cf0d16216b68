"""How the base model or the sentence encoder reads prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from melo_cli.errors import ModelError
from melo_cli.models.architecture import embedding_name
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.sentence_encoder import SentenceEncoder
from melo_cli.scope.core.reader import MOST_TOKENS, Reader, ReadingPlan
from melo_cli.scope.core.text_model import TextModel


def reader_for(base: BaseModel, layer: str) -> Reader:
    """The reader of a base model, or of its sentence encoder if it has one.

    Args:
        base: the base model.
        layer: name of the key layer.

    Raises:
        ModelError: the tokenizer does not give the offsets of tokens.
    """
    if not base.tokenizer.is_fast and base.encoder is None:
        raise ModelError(
            "the tokenizer of the base model does not give the positions of its tokens in the text",
            where=base.reference.describe(),
            hint="name a sentence encoder with key.encoder, or set routing.scope=radius and key.radius",
        )
    return Reader(text_model_of(base), reading_plan(base, layer))


@contextmanager
def held_as(base: BaseModel, dtype: torch.dtype) -> Iterator[None]:
    """Hold the weights of a base model in another dtype, in which it is read.

    Afterwards every weight is the same as before, bit for bit, if the dtype holds all values of its own.
    """
    model = base.model
    if model.dtype == dtype:
        yield
        return
    kept = {name: tensor.dtype for name, tensor in _tensors(model)}
    model.to(dtype=dtype)  # type: ignore[call-arg]
    try:
        yield
    finally:
        for name, tensor in _tensors(model):
            tensor.data = tensor.data.to(kept[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def text_model_of(base: BaseModel) -> TextModel:
    """The model that reads prompts: the sentence encoder if there is one, or else the base model."""
    if base.encoder is not None:
        model, tokenizer = base.encoder.model, base.encoder.tokenizer
        return TextModel(model, model, tokenizer, tokenizer.pad_token_id, "right", takes_positions=False)
    return TextModel(
        base.model,
        base.model.get_encoder() if base.kind is ModelKind.SEQ2SEQ else base.model,
        base.tokenizer,
        base.special.pad,
        "left" if base.kind is ModelKind.CAUSAL else "right",
        base.takes_positions,
    )


def reading_plan(base: BaseModel, layer: str) -> ReadingPlan:
    """How texts are read: at the base's input embeddings and key layer, or at an encoder's first and last
    layer."""
    if base.encoder is not None:
        return _plan_of_encoder(base.encoder)
    pooling = "last" if base.kind is ModelKind.CAUSAL else "mean"
    return ReadingPlan(embedding_name(base), layer, pooling, min(base.max_length or MOST_TOKENS, MOST_TOKENS))


def _plan_of_encoder(encoder: SentenceEncoder) -> ReadingPlan:
    low, high = encoder.layers()
    positions = getattr(encoder.model.config, "max_position_embeddings", MOST_TOKENS)
    # RoBERTa counts positions from its padding token on, so two of them are none.
    return ReadingPlan(
        low, high, encoder.pooling, min(positions - 2, encoder.tokenizer.model_max_length, MOST_TOKENS)
    )
