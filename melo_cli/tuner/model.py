"""The base model with its target modules wrapped: PEFT finds and replaces them, blocks come per pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from melo_cli.tuner.config import DynamicLoraConfig
from melo_cli.tuner.layer import ActiveBlocks, DynamicLoraLayer, Routing, SliceBank


class DynamicLoraModel(BaseTuner):
    """Dynamic LoRA over a transformers model (MELO, Sec. 3.2).

    All base parameters are frozen. Outside `using` the model answers as the base does.
    """

    prefix = "lora_"
    tuner_layer_cls = DynamicLoraLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (PEFT's own declaration)

    def __init__(self, model: nn.Module, config: DynamicLoraConfig) -> None:
        self._routing = Routing()
        super().__init__(model, config, "dynamic")

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        model.requires_grad_(False)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        setattr(parent, target_name, DynamicLoraLayer(target, current_key, self._routing))

    @property
    def layers(self) -> dict[str, DynamicLoraLayer]:
        """The wrapped target modules by their name in the base model, in module order."""
        found = (module for module in self.model.modules() if isinstance(module, DynamicLoraLayer))
        return {layer.name: layer for layer in found}

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
        with self._routing.using(ActiveBlocks.of(banks, rows, self.device)):
            yield
