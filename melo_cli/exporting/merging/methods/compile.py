"""The merge method `compile`: builds the router into the weights of a slightly larger model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from melo_cli.errors import ExportError
from melo_cli.exporting.base_copy import base_config
from melo_cli.exporting.merging.compiling.gpt2.layout import why_not as why_not_gpt2
from melo_cli.exporting.merging.compiling.gpt2.method import compiled_gpt2
from melo_cli.exporting.merging.compiling.t5.layout import why_not as why_not_t5
from melo_cli.exporting.merging.compiling.t5.method import compiled_t5
from melo_cli.exporting.merging.compiling.widened_weights import Widened
from melo_cli.exporting.merging.methods.method import LEARNED, Learns, MergeMethod
from melo_cli.exporting.merging.retention import load_checkpoint
from melo_cli.exporting.merging.training_examples import TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

_T5, _GPT2 = "T5ForConditionalGeneration", "GPT2LMHeadModel"
_WHERE = "--merge-method compile"


@dataclass(frozen=True)
class Compile(MergeMethod):
    """Adds detectors of the edits' prompts, and neurons that write their answers, to the base. No
    settings."""

    name: ClassVar[str] = "compile"
    learns: ClassVar[Learns] = Learns.PROMPTS

    def objection(self, base: BaseModel, examples: TrainingExamples | None = None) -> ExportError | None:
        why = _why_not(base_config(base))
        if why is not None:
            return ExportError(
                f"only GPT-2 and encoder-decoder T5 models with ReLU or GELU can be compiled: {why}",
                where=_WHERE,
                hint="use --merge-method distill, or --format routed",
            )
        if examples is not None and not examples.others:
            return ExportError(
                "there is no unrelated text, which compile needs beside the edits' prompts",
                where=_WHERE,
                hint="give unrelated text with --unrelated",
            )
        return None

    def find(self, opened: OpenProject, examples: TrainingExamples, seed: int, reporter: Reporter) -> Widened:
        base_copy = load_checkpoint(opened, opened.routed.base.folder).float()
        build = compiled_gpt2 if type(base_copy).__name__ == _GPT2 else compiled_t5
        return build(opened.routed.base, base_copy, examples, seed, reporter)

    def describe(self) -> str:
        return (
            "Compiled: the model is a little larger than the base, recognises the edits' prompts by what was "
            f"{LEARNED}, and answers them as asked; elsewhere it is the base."
        )


def _why_not(config: Mapping[str, Any]) -> str | None:
    kind, named = config.get("model_type"), config.get("architectures")
    if kind == "t5" and named in (None, [_T5]) and config.get("is_encoder_decoder", True):
        return why_not_t5(config)
    if kind == "gpt2" and named in (None, [_GPT2]):
        return why_not_gpt2(config)
    return f"this is {', '.join(named or ['a model without a named class'])} ({kind})"
