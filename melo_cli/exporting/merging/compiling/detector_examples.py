"""What detectors learn from, of a project's lessons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from melo_cli.exporting.merging.compiling.detectors import Examples, alike
from melo_cli.exporting.merging.training_examples import Lesson, Lessons

# Mean embeddings `[lessons, d]` of their prompts.
Pooled = Callable[[Sequence[Lesson]], Tensor]


def make_examples(lessons: Lessons, pooled: Pooled) -> Examples:
    """The mean embeddings of the lessons' prompts, and whose they are."""
    own = pooled(lessons.prompts)
    phrased = pooled(lessons.phrased) if lessons.phrased else own[:0]
    owners = list(range(len(own)))
    owners += [
        _owner(lesson, lessons.prompts, own, row)
        for lesson, row in zip(lessons.phrased, phrased, strict=True)
    ]
    targets = [lesson.encoded.target_ids for lesson in lessons.prompts]
    firing = torch.cat([own, phrased])
    return Examples(firing, torch.tensor(owners), pooled(lessons.others), alike(targets))


def _owner(lesson: Lesson, prompts: Sequence[Lesson], own: Tensor, row: Tensor) -> int:
    """Of the edits of one block, those that have a wording's answer before others, the nearest."""
    block = [place for place, other in enumerate(prompts) if other.block == lesson.block]
    # After another wording an answer may be of other tokens.
    mine = [place for place in block if prompts[place].encoded.target_ids == lesson.encoded.target_ids]
    return min(mine or block, key=lambda place: float((own[place] - row).norm()))
