"""The least-squares merge: for each target module the change that does on every prompt what the router did.

For a module with weight `W`, inputs `x` and wanted outputs `y` (those of the routed model), the change is

    D = argmin  mean_edits |(W + D) x - y|^2 + silence * mean_others |(W + D) x - y|^2 + ridge |D|^2

whose solution needs the two input covariances alone (RegMean, arXiv 2212.09849, merges linear layers by them;
MEMIT, arXiv 2210.07229, eq. 14, weighs new associations against the covariance of unrelated text). A large
`silence` drives D into the null space of that covariance, as AlphaEdit (arXiv 2410.02355) projects it there.
Modules are solved in the order in which they run, each on the inputs that the changes before it leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from melo_cli.exporting.merging.even_sample import even_sample
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import IGNORED
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.scoring import TargetBatch, target_batch, target_logits

_ROWS = 32
# Tokens of either kind for each input of the widest module: they settle a covariance, and with more of them
# a merge of long texts would take hours.
_TOKENS_AN_INPUT = 64
# Of the mean input energy: keeps the solution finite where inputs span less than the whole space.
_RIDGE = 1e-4


class _Reached(Exception):  # noqa: N818  (not an error: it ends the pass at the module in hand)
    pass


@dataclass
class _Moments:
    """Sums over tokens of one kind of lesson: `x x^T` `[in, in]` and `(y - W x) x^T` `[out, in]`, float64."""

    inputs: Tensor
    residuals: Tensor
    tokens: int = 0

    @classmethod
    def empty(cls, inputs: int, outputs: int) -> _Moments:
        return cls(
            torch.zeros(inputs, inputs, dtype=torch.float64),
            torch.zeros(outputs, inputs, dtype=torch.float64),
        )

    def add(self, x: Tensor, residual: Tensor) -> None:
        x, residual = x.double().cpu(), residual.double().cpu()
        self.inputs.addmm_(x.T, x)
        self.residuals.addmm_(residual.T, x)
        self.tokens += len(x)

    def mean(self) -> tuple[Tensor, Tensor]:
        count = max(self.tokens, 1)
        return self.inputs / count, self.residuals / count


def closed_form(
    opened: OpenProject,
    student: PreTrainedModel,
    training_examples: TrainingExamples,
    silence: float,
    reporter: Reporter,
) -> None:
    """Change the target modules of `student`, a plain copy of the base in float32, in place.

    Args:
        silence: how many lessons of edits weigh as much as all the other text together.
    """
    layers = opened.routed.tuner.layers
    names = _in_order(opened, student, list(layers), training_examples)
    tokens = _TOKENS_AN_INPUT * max(layer.in_features for layer in layers.values())
    edits = [
        *training_examples.prompts,
        *thinned(training_examples.phrased, tokens - _tokens(training_examples.prompts)),
    ]
    others = thinned(training_examples.others, tokens)
    steps = len(names) * (len(edits) + len(others))
    with reporter.progress("solving", steps, "prompts") as progress:
        for name in names:
            module = student.get_submodule(name)
            moments = [_collect(opened, student, name, group, progress.advance) for group in (edits, others)]
            weight = silence / len(edits)
            change = solve(*moments[0].mean(), *moments[1].mean(), silence=weight)
            _add(module, change.float())


def thinned(group: Sequence[TrainingExample], tokens: int) -> list[TrainingExample]:
    """Lessons spread evenly over a group, that have about so many tokens; all where it has no more."""
    whole = _tokens(group)
    if whole <= tokens:
        return list(group)
    return even_sample(group, max(0, tokens) * len(group) // whole)


def _tokens(group: Sequence[TrainingExample]) -> int:
    return sum(len(example.encoded.prompt_ids) + len(example.encoded.target_ids) for example in group)


def solve(
    edit_inputs: Tensor,
    edit_residuals: Tensor,
    other_inputs: Tensor,
    other_residuals: Tensor,
    *,
    silence: float,
) -> Tensor:
    """The change `[out, in]` of one module from mean moments of edits and of other text.

    Args:
        edit_inputs, other_inputs: mean of `x x^T`, `[in, in]`.
        edit_residuals, other_residuals: mean of `(y - W x) x^T`, `[out, in]`.
    """
    normal = edit_inputs + silence * other_inputs
    wanted = edit_residuals + silence * other_residuals
    ridge = _RIDGE * normal.diagonal().mean().clamp(min=torch.finfo(normal.dtype).tiny)
    normal = normal + ridge * torch.eye(len(normal), dtype=normal.dtype)
    change: Tensor = torch.cholesky_solve(wanted.T, torch.linalg.cholesky(normal)).T
    return change


@torch.no_grad()
def _collect(
    opened: OpenProject,
    student: PreTrainedModel,
    name: str,
    group: Sequence[TrainingExample],
    advance: Callable[[int], None],
) -> _Moments:
    layer = opened.routed.tuner.layers[name]
    module = student.get_submodule(name)
    moments = _Moments.empty(layer.in_features, layer.out_features)
    learner = replace(opened.routed.base, model=student)
    in_decoder = learner.kind is ModelKind.SEQ2SEQ and any(
        each is module for each in student.get_decoder().modules()
    )
    for training_examples in batches(group):
        batch = target_batch(learner, [example.encoded for example in training_examples])
        with opened.routed.using([example.block for example in training_examples]):
            _, wanted = _pass_through(opened.routed.base.model, layer, batch)
        x, output = _pass_through(student, module, batch)
        mask = _counted(batch, x, in_decoder=in_decoder)
        moments.add(x[mask], (wanted.to(output.device).float() - output.float())[mask])
        advance(len(training_examples))
    return moments


def batches(group: Sequence[TrainingExample]) -> Iterator[list[TrainingExample]]:
    """Lessons of like length together."""
    ordered = sorted(
        group, key=lambda example: len(example.encoded.prompt_ids) + len(example.encoded.target_ids)
    )
    return (ordered[start : start + _ROWS] for start in range(0, len(ordered), _ROWS))


def _pass_through(model: nn.Module, module: nn.Module, batch: TargetBatch) -> tuple[Tensor, Tensor]:
    """What a module is given and gives in one pass, which goes no further."""
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(_module: Any, arguments: tuple[Any, ...], output: Tensor) -> None:
        caught.append((arguments[0], output))
        raise _Reached

    with _hooked(module, catch), suppress(_Reached):
        model(**batch.inputs)
    return caught[0]


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _counted(batch: TargetBatch, x: Tensor, *, in_decoder: bool) -> Tensor:
    """The positions `[batch, length]` that are no padding; every row where a prompt is one vector."""
    if x.dim() == 2:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    # A decoder's cross-attention reads the prompt: its inputs are as long as that.
    if in_decoder and x.shape[1] == batch.targets.shape[1]:
        return batch.targets.to(x.device) != IGNORED
    mask = batch.inputs["attention_mask"]
    assert isinstance(mask, Tensor)
    return mask.to(x.device).bool()


@torch.no_grad()
def _in_order(
    opened: OpenProject, student: PreTrainedModel, names: Sequence[str], training_examples: TrainingExamples
) -> list[str]:
    """The modules in the order in which a pass runs them."""
    learner = replace(opened.routed.base, model=student)
    batch = target_batch(learner, [training_examples.edits[0].encoded])
    order: list[str] = []
    handles = [
        student.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name))
        for name in names
    ]
    try:
        target_logits(learner, batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


@torch.no_grad()
def _add(module: nn.Module, change: Tensor) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    weight += (change.T if isinstance(module, Conv1D) else change).to(weight.device)
