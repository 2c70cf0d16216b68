"""Which models can be compiled, and how each architecture is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from melo_cli.errors import ExportError
from melo_cli.exporting.base_copy import base_config
from melo_cli.exporting.merging.compiling.gpt2.layout import why_not as why_not_gpt2
from melo_cli.exporting.merging.compiling.gpt2.method import compiled_gpt2
from melo_cli.exporting.merging.compiling.t5.layout import why_not as why_not_t5
from melo_cli.exporting.merging.compiling.t5.method import compiled_t5
from melo_cli.exporting.merging.compiling.widened_weights import Widened
from melo_cli.exporting.merging.training_examples import TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.reporter import Reporter

_T5, _GPT2 = "T5ForConditionalGeneration", "GPT2LMHeadModel"


def compiled(
    base: BaseModel,
    plain: PreTrainedModel,
    training_examples: TrainingExamples,
    seed: int,
    reporter: Reporter,
) -> Widened:
    """The base with what tells its edits' prompts, and what answers them, built around it.

    Args:
        plain: a copy of the base, float32.
        training_examples: of their answers, those of the edits alone are read.

    Raises:
        ExportError: there is no text to tell the edits from.
    """
    if not training_examples.others:
        raise ExportError(
            "there is no other text to tell the edits' prompts from",
            where="--merge-method compile",
            hint="give some with --unrelated",
        )
    build = compiled_gpt2 if type(plain).__name__ == _GPT2 else compiled_t5
    return build(base, plain, training_examples, seed, reporter)


@torch.no_grad()
def as_model(plain: PreTrainedModel, changes: Widened) -> PreTrainedModel:
    """The larger model in memory, without its file."""
    config: Any = copy.deepcopy(plain.config)
    for name, value in changes.settings.items():
        setattr(config, name, value)
    model = type(plain)(config).eval().requires_grad_(False)
    for name in changes.parameters:
        weight = plain.get_parameter(name).float().cpu()
        model.get_parameter(name).copy_(changes.apply(name, weight))
    placed: PreTrainedModel = model.to(plain.device)
    return placed


def require_compilable(base: BaseModel) -> None:
    """Refuse a model that the added parts do not fit.

    Raises:
        ExportError: it is of another architecture, or a variant that breaks the scheme.
    """
    why = _why_not(base_config(base))
    if why is not None:
        raise ExportError(
            f"it compiles into GPT-2 and encoder-decoder T5 models alone, with ReLU or GELU: {why}",
            where="--merge-method compile",
            hint="use --merge-method distill, or --format routed",
        )


def compilable(base: BaseModel) -> bool:
    """Whether the added parts fit the model."""
    return _why_not(base_config(base)) is None


def _why_not(config: Mapping[str, Any]) -> str | None:
    kind, named = config.get("model_type"), config.get("architectures")
    if kind == "t5" and named in (None, [_T5]) and config.get("is_encoder_decoder", True):
        return why_not_t5(config)
    if kind == "gpt2" and named in (None, [_GPT2]):
        return why_not_gpt2(config)
    return f"this is {', '.join(named or ['a model without a named class'])} ({kind})"
