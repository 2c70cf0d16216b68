"""Other editors: those that `melo eval --baseline` knows, which move weights or route by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from melo_cli.bench.asking import answers
from melo_cli.bench.methods.method import Answering, Edited, Method, Ready, Reply
from melo_cli.bench.methods.routed import by_block, by_route
from melo_cli.bench.questions import Question
from melo_cli.evaluation.baselines import Baseline, edits_made, parse_baselines
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject

_WORDS = {
    "finetune": "the weights of one module, trained in epochs over all edits (LocFT-BF, arXiv 2509.22072)",
    "lora": "one LoRA for all edits, trained in epochs",
    "grace": "a codebook of values at one layer (GRACE, arXiv 2211.11031)",
    "alphaedit": "one module changed in closed form, beside general keys (AlphaEdit, arXiv 2410.02355)",
}


class OtherEditor:
    """A baseline with its settings as they are by default, or as `--method-set` changes them."""

    only_generating = False
    answers_prose = True

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.name = baseline.name
        self.words = _WORDS[baseline.name]
        self.options: Mapping[str, Any] = baseline.model_dump()

    @contextmanager
    def ready(self, edited: Edited, reporter: Reporter) -> Iterator[Ready]:
        opened = edited.opened
        live = edited.live
        encoded = [opened.encoder.edit(edit.prompt, edit.target) for edit in live]
        ids = [edit.edit_id for edit in live]
        with edits_made(self.baseline, opened, encoded, ids, reporter) as (changed, seconds):
            routes = self.baseline.routes
            reply = (
                by_route(changed.opened.inference.routes, by_block(changed.opened))
                if routes
                else _anew(changed.opened)
            )
            yield Ready(
                reply,
                changed.opened,
                seconds,
                changed.stored_bytes,
                changed.settings,
                weights_changed=not routes,
            )


def _anew(asked: OpenProject) -> Answering:
    """Answers of the weights as they are now."""

    def reply(questions: Sequence[Question], base: Sequence[str], advance: Advance) -> list[Reply]:
        return [Reply(text) for text in answers(asked, questions, [None] * len(questions), advance)]

    return reply


def other_editors(names: Sequence[str], assignments: Sequence[str]) -> list[Method]:
    """The baselines named, with their settings.

    Raises:
        MeloError: an unknown setting, or a value that does not fit.
    """
    named = parse_baselines(",".join(names), assignments, option="--methods", setting="--method-set")
    return [OtherEditor(baseline) for baseline in named]
