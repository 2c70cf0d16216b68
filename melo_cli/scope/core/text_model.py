"""A model that reads: from tokens to states at some of its layers, by one run as far as the last of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .tuning import Tuning


class _AllCaught(Exception):  # noqa: N818  (not an error: it ends the forward pass at the last layer asked for)
    pass


@dataclass(frozen=True)
class TextModel:
    """A base model as far as it reads a prompt, or a sentence encoder.

    Attributes:
        model: holds the layers, by their names in it.
        run: goes over a padded batch: the model's forward; of an encoder-decoder the encoder's.
        tokenizer: transformers' tokenizer of the model.
        padding_side: `left` or `right`.
        takes_positions: whether a padded batch needs `position_ids`.
    """

    model: nn.Module
    run: Callable[..., Any]
    tokenizer: Any
    pad_token_id: int
    padding_side: str
    takes_positions: bool

    def tuned(self, tuning: Tuning) -> TextModel:
        """The same with its weights changed; a tuning is that of a whole model, an encoder."""
        model = tuning.applied_to(self.model)
        return self if model is self.model else replace(self, model=model, run=model)

    @torch.no_grad()
    def states(
        self, rows: Sequence[Sequence[int]], layers: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The outputs `[n, length, d]` of layers for rows of tokens, and the mask `[n, length]` of real ones.

        A row without a token is read as one of padding.
        """
        rows = [row or [self.pad_token_id] for row in rows]
        ids = self._padded([torch.tensor(row) for row in rows], self.pad_token_id)
        mask = self._padded([torch.ones(len(row), dtype=torch.long) for row in rows], 0)
        device = next(self.model.get_submodule(layers[0]).parameters()).device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if self.takes_positions:
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        caught = self._caught(inputs, layers)
        # Longformer fills up each row to a whole number of its windows, behind what it was given.
        return {layer: states[:, : mask.shape[1]] for layer, states in caught.items()}, inputs[
            "attention_mask"
        ]

    def _padded(self, rows: Sequence[Tensor], filler: int) -> Tensor:
        return pad_sequence(list(rows), True, filler, self.padding_side)

    def _caught(self, inputs: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
        caught: dict[str, Tensor] = {}

        def catch(layer: str) -> Callable[[Any, Any, Any], None]:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                caught[layer] = output[0] if isinstance(output, tuple) else output
                if len(caught) == len(layers):
                    raise _AllCaught

            return hook

        hooks = [self.model.get_submodule(layer).register_forward_hook(catch(layer)) for layer in layers]
        try:
            self.run(**inputs)
        except _AllCaught:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return caught
