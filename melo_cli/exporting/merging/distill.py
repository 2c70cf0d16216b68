"""The routed model teaches a dense one: knowledge distillation (Hinton et al., arXiv 1503.02531).

Each step takes some lessons of edits and as many of what is to stay, and moves the student's distribution at
every answer token towards the routed model's, by `KL(teacher || student)`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.encoding import IGNORED
from melo_cli.exporting.merging.lessons import Lesson, Lessons
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from melo_cli.scoring import target_batch, target_logits

_HALF = 16
_WARM_UP = 0.05


def distill(
    opened: OpenProject,
    student: PreTrainedModel,
    lessons: Lessons,
    parameters: Sequence[str],
    *,
    steps: int,
    lr: float,
    seed: int,
    reporter: Reporter,
) -> None:
    """Train `parameters` of `student`, a plain copy of the base in float32, in place.

    Args:
        lr: highest learning rate of AdamW; it rises over the first twentieth of the steps and falls to 0.
    """
    drawn = random.Random(seed)
    named = dict(student.named_parameters())
    trained = [named[name].requires_grad_(True) for name in parameters]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    with reporter.progress("distilling", steps, "steps") as progress:
        for _ in range(steps):
            loss = divergence(opened, student, _draw(lessons, drawn))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            progress.advance(loss=loss.item())
    student.requires_grad_(False)


def _rate(step: int, steps: int) -> float:
    rise = max(1, round(_WARM_UP * steps))
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))


def _draw(lessons: Lessons, drawn: random.Random) -> list[Lesson]:
    """Half edits (own prompts and phrasings alike), half what is to stay."""
    prompts = [lesson for lesson in lessons.edits if lesson.is_prompt]
    phrased = [lesson for lesson in lessons.edits if not lesson.is_prompt]
    edits = _some(prompts, _HALF // 2 if phrased else _HALF, drawn) + _some(phrased, _HALF // 2, drawn)
    return edits + _some(lessons.others, _HALF, drawn)


def _some(lessons: Sequence[Lesson], count: int, drawn: random.Random) -> list[Lesson]:
    return drawn.sample(lessons, min(count, len(lessons)))


def divergence(opened: OpenProject, student: PreTrainedModel, lessons: Sequence[Lesson]) -> Tensor:
    """Mean over answer tokens of `KL(teacher || student)`, nats."""
    base = opened.routed.base
    batch = target_batch(base, [lesson.encoded for lesson in lessons])
    with torch.no_grad(), opened.routed.using([lesson.block for lesson in lessons]):
        wanted = target_logits(base, batch)
    given = target_logits(replace(base, model=student), batch)
    known = batch.targets != IGNORED
    return torch.nn.functional.kl_div(
        given[known].log_softmax(-1), wanted[known].log_softmax(-1), log_target=True, reduction="batchmean"
    )
