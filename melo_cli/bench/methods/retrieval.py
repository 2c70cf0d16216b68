"""Retrieval without a router: the edits that are nearest stand before every question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from melo_cli.bench.asking import answers
from melo_cli.bench.methods.method import Edited, Ready, Reply
from melo_cli.bench.questions import Question
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject

_NEAREST = 3


class Retrieval:
    """The three nearest edits before every question."""

    name = "rag"
    words = "the three nearest edits, by the project's keys, before every question"
    options: Mapping[str, Any] = {}
    only_generating = True
    answers_prose = False

    @contextmanager
    def ready(self, edited: Edited, reporter: Reporter) -> Iterator[Ready]:
        opened = edited.opened
        pairs = {edit.edit_id: (edit.prompt, edit.target) for edit in edited.live}

        def reply(questions: Sequence[Question], base: Sequence[str], advance: Advance) -> list[Reply]:
            found = nearest_edits(opened, questions, _NEAREST)
            # The nearest one stands last, next to the question.
            before = [[pairs[each] for each in reversed(some) if each in pairs] for some in found]
            written = answers(opened, questions, [None] * len(questions), advance, before)
            return [Reply(text, some[0]) for text, some in zip(written, found, strict=True)]

        yield Ready(reply, opened, 0.0, edited.bytes_without_blocks(), {"edits": _NEAREST})


def nearest_edits(opened: OpenProject, questions: Sequence[Question], count: int) -> list[list[str]]:
    """The ids of the edits whose keys are nearest to each question's, nearest first."""
    if not questions:
        return []
    prompts = [question.prompt for question in questions]
    records = opened.routed.router.records(prompts, [None] * len(prompts))
    found = opened.project.nearest(np.stack([record.key for record in records]), k=count)
    return [[near.edit_id for near in some] for some in found]
