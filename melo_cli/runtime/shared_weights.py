"""A second routed model over the same weights, for another thread."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from torch import nn

from melo_cli.models.base_model import BaseModel
from melo_cli.runtime.loading import OpenProject, assemble
from melo_cli.tuner import DynamicLoraLayer

_Model = TypeVar("_Model", bound=nn.Module)


def over_shared_weights(opened: OpenProject) -> OpenProject:
    """The same project over modules and a tokenizer of its own, which hold the same parameters and buffers.

    Hooks, wrapped modules and the blocks in force belong to one of the two models alone, so that one thread
    answers while another reads prompts for their routes or trains.

    Args:
        opened: a project whose model no other thread uses during this call.
    """
    base = _with_own_modules(opened.routed.base, opened.routed.tuner.layers)
    return assemble(opened.project, opened.recipe, base)


def _with_own_modules(base: BaseModel, wrapped: Iterable[str]) -> BaseModel:
    model = _copied(base.model)
    for name in wrapped:
        layer = model.get_submodule(name)
        assert isinstance(layer, DynamicLoraLayer)
        model.set_submodule(name, layer.base_layer)
    encoder = base.encoder
    if encoder is not None:
        own_tokenizer = copy.deepcopy(encoder.tokenizer)
        encoder = replace(encoder, model=_copied(encoder.model), tokenizer=own_tokenizer)
    return replace(base, model=model, tokenizer=copy.deepcopy(base.tokenizer), encoder=encoder)


def _copied(model: _Model) -> _Model:
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
