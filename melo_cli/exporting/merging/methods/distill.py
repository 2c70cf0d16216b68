"""The routed model teaches a dense one: knowledge distillation (Hinton et al., arXiv 1503.02531).

Each step takes edits in their own and in other words, with cross-entropy towards their targets, and prompts
that read like edits and unrelated text, with `KL(base || student)` along the base's own greedy answers.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from melo_cli.exporting.merging.checkpoint import Additions
from melo_cli.exporting.merging.methods.method import LEARNED, Learns, MergeMethod
from melo_cli.exporting.merging.retention import load_checkpoint
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.scoring import TargetBatch, target_batch, target_logits, target_losses

# Training examples of a step: edits' own prompts, variants, hard prompts, unrelated text.
_ROWS = (6, 14, 28, 10)
# Weight of hard prompts in the loss: they are the hardest to leave unchanged.
_NEAR_WEIGHT = 2.0
# Rows and tokens of one pass, padding counted.
_AT_ONCE, _TOKENS = 14, 2048
_WARM_UP = 0.05
# Steps between two checks, and examples of hard and of unrelated prompts that are held out for the checks.
_CHECK_EVERY, _HELD_OUT = 25, 64
# Training ends when this share of each kind of example is answered as taught.
_ENOUGH = 0.97
# Bounds of the number of steps if the settings name none; it grows by one for each edit.
_FEWEST_STEPS, _MOST_STEPS = 150, 2000


@dataclass(frozen=True)
class Distill(MergeMethod):
    """Trains a copy of the base; gradients and the moments of AdamW are held in memory.

    Attributes:
        steps: largest number of steps; None is a number that grows with the number of edits.
        lr: highest learning rate of AdamW.
        weights: the weights to train; `targets` are those of the target modules.
    """

    name: ClassVar[str] = "distill"
    learns: ClassVar[Learns] = Learns.ANSWERS

    steps: int | None = None
    lr: float = 7e-4
    weights: Literal["all", "targets"] = "all"

    def find(
        self, opened: OpenProject, examples: TrainingExamples, seed: int, reporter: Reporter
    ) -> Differences:
        student = load_checkpoint(opened, opened.routed.base.folder).float()
        parameters = (
            [name for name, _ in student.named_parameters()]
            if self.weights == "all"
            else [f"{name}.weight" for name in opened.routed.tuner.layers]
        )
        changes = Differences(student, parameters)
        steps = self.steps or min(_FEWEST_STEPS + len(examples.prompts), _MOST_STEPS)
        distill(
            opened,
            student,
            examples,
            parameters,
            steps=steps,
            lr=self.lr,
            enough=_ENOUGH,
            seed=seed,
            reporter=reporter,
        )
        return changes

    def describe(self) -> str:
        trained = "all the weights" if self.weights == "all" else "the target modules"
        return f"Distilled into {trained}, {LEARNED}."


class Differences(Additions):
    """The differences of a student's weights from the base that it was copied from."""

    def __init__(self, student: PreTrainedModel, parameters: Sequence[str]) -> None:
        self._student = dict(student.named_parameters())
        self._before = {name: self._student[name].detach().clone() for name in parameters}

    @property
    def parameters(self) -> Collection[str]:
        return list(self._before)

    def of(self, parameter: str) -> Tensor:
        return (self._student[parameter].detach() - self._before[parameter]).cpu()


@dataclass(frozen=True)
class _Weighted:
    """A training example of a step, and the weight of each token of its answer in the step's loss."""

    example: TrainingExample
    weight: float

    @property
    def length(self) -> int:
        encoded = self.example.encoded
        return len(encoded.prompt_ids) + len(encoded.target_ids)


class _ShuffledExamples:
    """Training examples in random order; each comes once before any is repeated."""

    def __init__(self, training_examples: Sequence[TrainingExample], drawn: random.Random) -> None:
        self._training_examples, self._drawn = list(training_examples), drawn
        self._left: list[TrainingExample] = []

    def take(self, count: int) -> list[TrainingExample]:
        """The next `count` examples, or all if there are fewer."""
        count = min(count, len(self._training_examples))
        if len(self._left) < count:
            self._left += self._drawn.sample(self._training_examples, len(self._training_examples))
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def distill(
    opened: OpenProject,
    student: PreTrainedModel,
    training_examples: TrainingExamples,
    parameters: Sequence[str],
    *,
    steps: int,
    lr: float,
    enough: float,
    seed: int,
    reporter: Reporter,
) -> None:
    """Train a student in place.

    Args:
        opened: the project, opened; its base model is the teacher.
        student: an unwrapped copy of the base, float32.
        training_examples: what is taught.
        parameters: names of the parameters to train.
        steps: largest number of steps.
        lr: highest learning rate of AdamW; it rises over the first twentieth of the steps and then falls to
            0.
        enough: training ends when this share of the edits is answered as asked, and this share of the
            held-out hard and unrelated prompts is answered as by the base.
        seed: seed of the order of the examples.
        reporter: shows progress.
    """
    drawn = random.Random(seed)
    learner = replace(opened.routed.base, model=student)
    (near_held_out, near), (far_held_out, far) = (
        _split_held_out(group, drawn) for group in (training_examples.near, training_examples.far)
    )
    held_out = [training_examples.prompts, near_held_out, far_held_out]
    shuffled = [
        _ShuffledExamples(group, drawn)
        for group in (training_examples.prompts, training_examples.phrased, near, far)
    ]
    named = dict(student.named_parameters())
    trained = [named[name].requires_grad_(True) for name in parameters]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    with reporter.progress("distilling", steps, "steps") as progress:
        for step in range(1, steps + 1):
            loss = _learn(opened, learner, shuffled)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            progress.advance(loss=loss)
            if step % _CHECK_EVERY == 0 and _lowest_share_kept(learner, held_out) >= enough:
                break
    student.requires_grad_(False)


def _split_held_out(
    group: Sequence[TrainingExample], drawn: random.Random
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Examples that are held out, and the others."""
    mixed = drawn.sample(group, len(group))
    count = min(_HELD_OUT, len(group) // 4)
    return mixed[:count], mixed[count:]


@torch.no_grad()
def share_kept(learner: BaseModel, training_examples: Sequence[TrainingExample]) -> float:
    """Share of examples of whose answers every token is the model's first choice."""
    held = 0
    for rows in _passes(_weighted(training_examples, 1.0)):
        batch = target_batch(learner, [row.example.encoded for row in rows])
        right = target_logits(learner, batch).argmax(-1) == batch.targets
        held += int((right | ~_known(batch)).all(-1).sum())
    return held / len(training_examples)


def _rate(step: int, steps: int) -> float:
    rise = max(1, round(_WARM_UP * steps))
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))


def _learn(opened: OpenProject, learner: BaseModel, shuffled: Sequence[_ShuffledExamples]) -> float:
    """Add the gradients of one step to the parameters.

    Returns:
        The loss in nats: the weighted sum of the mean token losses of edits, hard prompts and unrelated text.
    """
    own, phrased, near, far = (group.take(count) for group, count in zip(shuffled, _ROWS, strict=True))
    edits = _weighted([*own, *phrased], 1.0)
    others = [*_weighted(near, _NEAR_WEIGHT), *_weighted(far, 1.0)]
    total = 0.0
    for part in (edits, others):
        for rows in _passes(part):
            batch = target_batch(learner, [row.example.encoded for row in rows])
            losses = target_losses(learner, batch) if part is edits else _as_base(opened, learner, batch)
            weights = torch.tensor([row.weight for row in rows], device=losses.device)
            loss = (losses * weights[_known(batch).nonzero()[:, 0]]).sum()
            loss.backward()
            total += loss.item()
    return total


def _weighted(training_examples: Sequence[TrainingExample], weight: float) -> list[_Weighted]:
    tokens = sum(len(example.encoded.target_ids) for example in training_examples)
    return [_Weighted(example, weight / tokens) for example in training_examples]


def _passes(rows: Sequence[_Weighted]) -> Iterator[list[_Weighted]]:
    """Batches of rows of similar length, so that there is little padding."""
    batch: list[_Weighted] = []
    for row in sorted(rows, key=lambda row: (len(row.example.encoded.target_ids), row.length)):
        longest = max([row.length, *(each.length for each in batch)])
        if batch and (len(batch) == _AT_ONCE or longest * (len(batch) + 1) > _TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _as_base(opened: OpenProject, learner: BaseModel, batch: TargetBatch) -> Tensor:
    """`KL(base || student)` `[N]` at each answer token."""
    known = _known(batch)
    with torch.no_grad(), opened.routed.using([None] * len(known)):
        wanted = target_logits(opened.routed.base, batch)[known].log_softmax(-1)
    given = target_logits(learner, batch)[known].log_softmax(-1)
    return kl_div(given, wanted, log_target=True, reduction="none").sum(-1)


def _known(batch: TargetBatch) -> Tensor:
    return batch.targets != IGNORED


def _lowest_share_kept(learner: BaseModel, groups: Sequence[Sequence[TrainingExample]]) -> float:
    """The lowest `share_kept` of any group."""
    return min(share_kept(learner, group) for group in groups if group)
