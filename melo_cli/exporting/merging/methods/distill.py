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
from melo_cli.exporting.merging.retention import load_plain
from melo_cli.exporting.merging.training_examples import TrainingExample, TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import IGNORED
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.scoring import TargetBatch, target_batch, target_logits, target_losses

# Lessons of a step: edits' own prompts, other wordings, lookalikes, unrelated text.
_ROWS = (6, 14, 28, 10)
# What reads like an edit is the hardest to leave alone.
_NEAR_WEIGHT = 2.0
# Rows and tokens of one pass, padding counted.
_AT_ONCE, _TOKENS = 14, 2048
_WARM_UP = 0.05
# Steps between two looks, and lessons of each kind of what stays that are held out for them.
_LOOK, _HELD_OUT = 25, 64
# The training ends where this share of each kind of example is answered as taught.
_ENOUGH = 0.97
# Steps at most, where the settings name no number: one more for each edit, within these bounds.
_FEWEST_STEPS, _MOST_STEPS = 150, 2000


@dataclass(frozen=True)
class Distill(MergeMethod):
    """Trains a copy of the base, which needs its gradients and Adam's moments in memory.

    Attributes:
        steps: at most; None is a number that grows with that of the edits.
        lr: highest learning rate of AdamW.
        weights: which are trained; `targets` are those of the modules that have blocks.
    """

    name: ClassVar[str] = "distill"
    learns: ClassVar[Learns] = Learns.ANSWERS

    steps: int | None = None
    lr: float = 7e-4
    weights: Literal["all", "targets"] = "all"

    def find(
        self, opened: OpenProject, examples: TrainingExamples, seed: int, reporter: Reporter
    ) -> Differences:
        student = load_plain(opened, opened.routed.base.folder).float()
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
    """What a student in memory has over the base it was copied from."""

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
    """A lesson of a step, and what each token of its answer weighs in the step's loss."""

    example: TrainingExample
    weight: float

    @property
    def length(self) -> int:
        encoded = self.example.encoded
        return len(encoded.prompt_ids) + len(encoded.target_ids)


class _ShuffledExamples:
    """Lessons in random order, each once before any comes again."""

    def __init__(self, training_examples: Sequence[TrainingExample], drawn: random.Random) -> None:
        self._training_examples, self._drawn = list(training_examples), drawn
        self._left: list[TrainingExample] = []

    def take(self, count: int) -> list[TrainingExample]:
        """The next ones; fewer where the whole deck is smaller."""
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
    """Train `parameters` of `student`, a plain copy of the base in float32, in place.

    Args:
        steps: at most.
        lr: highest learning rate of AdamW; it rises over the first twentieth of the steps and falls to 0.
        enough: the training ends when this share of the edits is answered as asked, and of each kind of what
            stays, on prompts that were held out, is answered as the base does.
    """
    drawn = random.Random(seed)
    learner = replace(opened.routed.base, model=student)
    (near_held_out, near), (far_held_out, far) = (
        _parted(group, drawn) for group in (training_examples.near, training_examples.far)
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
            if step % _LOOK == 0 and _least(learner, held_out) >= enough:
                break
    student.requires_grad_(False)


def _parted(
    group: Sequence[TrainingExample], drawn: random.Random
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Lessons that are held out, and the others."""
    mixed = drawn.sample(group, len(group))
    count = min(_HELD_OUT, len(group) // 4)
    return mixed[:count], mixed[count:]


@torch.no_grad()
def share_kept(learner: BaseModel, training_examples: Sequence[TrainingExample]) -> float:
    """Share of lessons that a model answers, greedily, as they say: every token is its first choice."""
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
        The loss: over edits and over each kind of what stays the mean of all tokens, summed by weight, nats.
    """
    own, phrased, near, far = (deck.take(count) for deck, count in zip(shuffled, _ROWS, strict=True))
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
    """Rows of like length together, so that little is padding."""
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


def _least(learner: BaseModel, groups: Sequence[Sequence[TrainingExample]]) -> float:
    """What is kept of the group of which least is."""
    return min(share_kept(learner, group) for group in groups if group)
