"""The modules that a block can add to."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """`(in, out)` features of a module that a block can add to.

    Raises:
        TypeError: the module is neither a Linear nor a Conv1D.
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return inputs, outputs
    raise TypeError(f"blocks can only add to Linear and Conv1D, not to {type(module).__name__}")
