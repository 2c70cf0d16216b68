"""Expected outputs of an artefact: the project's own answers to a sample of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from melo_cli.evaluation import collect_probes
from melo_cli.exporting.merging.retention import sample_probes
from melo_cli.models.base_model import ModelKind
from melo_cli.reporter import Reporter
from melo_cli.runtime.greedy import greedy_options, room_after
from melo_cli.runtime.loading import OpenProject

# Enough tokens to compare two answers; the first token decides most.
_NEW_TOKENS = 16


@dataclass(frozen=True)
class ExpectedOutput:
    """One prompt with its expected answer.

    Attributes:
        ids: the prompt's tokens.
        options: generation settings; empty for a classifier.
        adapter: the block that answers; None for the base.
        answer: ids of the prompt and the generated tokens, or the class id alone.
    """

    prompt: str
    ids: list[int]
    options: dict[str, Any]
    adapter: str | None
    answer: list[int]


def expected_outputs(opened: OpenProject, request: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Ask the project edits, rephrases and unrelated prompts, each alone.

    Args:
        opened: the project, opened.
        request: `count`, the largest number of prompts of each kind.
        reporter: shows progress.

    Returns:
        `expected`, each as a mapping; `dtype` and `device` of the arithmetic they were made in.
    """
    probes = sample_probes(collect_probes(opened, reporter), request["count"])
    asked = [probe.prompt for group in (probes.edits, probes.rephrases, probes.unrelated) for probe in group]
    expected = []
    with reporter.progress("asking the project", len(asked), "prompts") as progress:
        for prompt in asked:
            expected.append(vars(_expected_output(opened, prompt)))
            progress.advance()
    model = opened.routed.base.model
    return {
        "expected": expected,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


@torch.no_grad()
def _expected_output(opened: OpenProject, prompt: str) -> ExpectedOutput:
    ids = list(opened.encoder.prompt(prompt))
    inputs = torch.tensor([ids], device=opened.routed.device)
    mask = torch.ones_like(inputs)
    options: dict[str, Any] = {}
    if opened.routed.base.kind is ModelKind.CLASSIFIER:
        answer = [int(opened.routed(inputs, mask).logits.argmax())]
    else:
        base = opened.routed.base
        options = greedy_options(base, max(1, min(_NEW_TOKENS, room_after(base, len(ids)))))
        written = opened.routed.generate(inputs, mask, generation_config=GenerationConfig(**options))
        answer = written[0].tolist()
    fired = opened.routed.routes[0].fired
    return ExpectedOutput(prompt, ids, options, fired.block if fired is not None else None, answer)
