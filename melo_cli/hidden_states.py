"""What layers of a model give for a batch, by one run of the model as far as the last of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.base_model import BaseModel, ModelKind


class _AllCaught(Exception):  # noqa: N818  (not an error: it ends the forward pass at the last layer asked for)
    pass


def hidden_states(base: BaseModel, layers: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs `[batch, length, d]` of a base model's layers that read the prompt.

    Args:
        inputs: a padded batch with its positions (`with_positions`).
    """
    runner = base.model.get_encoder() if base.kind is ModelKind.SEQ2SEQ else base.model
    return states_at(base.model, runner, layers, inputs)


@torch.no_grad()
def states_at(
    model: nn.Module, runner: Callable[..., Any], layers: Sequence[str], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs of layers, by name in `model`, while `runner` goes over a padded batch."""
    caught: dict[str, Tensor] = {}

    def catch(layer: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            caught[layer] = output[0] if isinstance(output, tuple) else output
            if len(caught) == len(layers):
                raise _AllCaught

        return hook

    hooks = [model.get_submodule(layer).register_forward_hook(catch(layer)) for layer in layers]
    try:
        runner(**inputs)
    except _AllCaught:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return caught
