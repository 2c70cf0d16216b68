"""The base model with its target modules wrapped; blocks come per pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from melo_cli.tuner.config import DynamicLoraConfig
from melo_cli.tuner.layer import ActiveBlocks, DynamicLoraLayer, Routing, SliceBank


class DynamicLoraModel:
    """Dynamic LoRA over a transformers model (MELO, Sec. 3.2).

    All base parameters are frozen. Outside `using` the model answers as the base does. It is no tuner of
    PEFT's: importing PEFT takes longer than loading a small model, and only what is exported needs it.

    Attributes:
        layers: the wrapped target modules by their name in the base model, in module order.

    Raises:
        AttributeError: the model has no module of that name.
        TypeError: a target is neither a Linear nor a Conv1D.
    """

    def __init__(self, model: nn.Module, config: DynamicLoraConfig) -> None:
        self.model = model
        self._routing = Routing()
        order = {name: i for i, (name, _) in enumerate(model.named_modules())}
        names = sorted(config.target_modules, key=lambda name: order.get(name, -1))
        self.layers = {
            name: DynamicLoraLayer(model.get_submodule(name), name, self._routing) for name in names
        }
        model.requires_grad_(False)
        for name, layer in self.layers.items():
            model.set_submodule(name, layer)

    @property
    def device(self) -> torch.device:
        """Where the base model's parameters are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @contextmanager
    def using(self, banks: Mapping[str, SliceBank], rows: Sequence[int]) -> Iterator[None]:
        """Route the passes made inside: row `i` of a batch takes bank entry `rows[i]`, or the base at -1.

        A batch of `k * len(rows)` rows (beams, samples) gives each prompt's `k` copies its route.
        """
        with self.applied(ActiveBlocks.of(banks, rows, self.device)):
            yield

    @contextmanager
    def applied(self, active: ActiveBlocks) -> Iterator[None]:
        """`using`, of blocks that were put together before: many passes may take the same."""
        with self._routing.using(active):
            yield

    def unload(self) -> None:
        """Put the target modules back where they were."""
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer.base_layer)
