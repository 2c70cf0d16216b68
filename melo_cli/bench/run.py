"""`melo bench`: the edits of a suite made once, then every method asked the same questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from melo_cli.bench.ability import AbilityScores, ability, base_scores
from melo_cli.bench.answer_rows import AnswerRow, figures, judged
from melo_cli.bench.asking import answers, fits
from melo_cli.bench.folder import BenchFolder
from melo_cli.bench.forms import made_forms
from melo_cli.bench.methods.method import Edited, Method, Reply
from melo_cli.bench.plan import BenchPlan
from melo_cli.bench.questions import Question
from melo_cli.bench.report import BASE, BenchReport
from melo_cli.bench.suites import SuiteData, read_suite
from melo_cli.editing import edit_dataset
from melo_cli.errors import MeloError
from melo_cli.evaluation.statistics import drawn
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject, open_project


@dataclass(frozen=True)
class _Asked:
    """The questions with the base's answers."""

    edited: Edited
    questions: list[Question]
    base: list[str]

    @cached_property
    def base_ability(self) -> AbilityScores:
        """What the base can do besides; asked for while its weights are its own."""
        return base_scores(self.edited.opened)


def run_bench(
    plan: BenchPlan,
    methods: Sequence[Method],
    folder: BenchFolder,
    reporter: Reporter,
    *,
    command: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> BenchReport | None:
    """Make the edits that are still to be made, and ask the methods that have not been asked.

    Args:
        plan: suite, data, model and numbers.
        methods: what is compared beside the base.
        folder: where the run is kept.
        reporter: shows progress.
        command: the command line that the project's history records.
        should_stop: asked before each group of edits and before each method; True ends the run after what is
            kept.

    Returns:
        What was measured of `methods`; None where the run was stopped.

    Raises:
        MeloError: recipe, data or model do not fit.
    """
    recipe = plan.recipe()
    summary = edit_dataset(recipe, folder.project, reporter, command=command, should_stop=should_stop)
    seconds_an_edit = folder.add_edit_time(summary.seconds, len(summary.outcomes))
    if summary.left:
        return None
    assert recipe.dataset is not None  # every suite has data
    data = read_suite(plan.suite, recipe.dataset, reporter)
    edited = Edited(open_project(folder.project), seconds_an_edit)
    asked = _ask_base(edited, _questions(plan, data, edited.opened, reporter), folder, reporter)
    for method in methods:
        if should_stop():
            return None
        if _is_done(method, edited.opened.project.snapshot, folder, reporter):
            reporter.info(f"{method.name} is there already")
        elif method.only_generating and not edited.opened.routed.base.kind.generates:
            reporter.warn(f"{method.name} is left out: before a document that is classified stands nothing")
        else:
            _ask_method(method, asked, folder, reporter)
    return BenchReport.of(plan, folder, [method.name for method in methods])


def _questions(plan: BenchPlan, data: SuiteData, opened: OpenProject, reporter: Reporter) -> list[Question]:
    asked = drawn(len(data.edits), plan.ask, f"{opened.recipe.seed}: bench")
    questions = list(data.questions(asked, plan.ask))
    if plan.forms:
        questions += made_forms(data.edits, asked, chat=opened.encoder.template == "chat")
    kept = [question for question in questions if fits(opened, question)]
    if len(kept) < len(questions):
        reporter.warn(f"{len(questions) - len(kept)} questions are left out: the model takes no such length")
    return kept


def _ask_base(edited: Edited, questions: list[Question], folder: BenchFolder, reporter: Reporter) -> _Asked:
    """The base's answers, which are kept.

    Raises:
        MeloError: those that are kept answer other questions.
    """
    if folder.summary(BASE) is not None:
        kept = folder.rows(BASE)
        if [row.prompt for row in kept] != [question.prompt for question in questions]:
            raise MeloError(
                "the folder's answers are to other questions: the data or melo have changed since",
                where=str(folder.path),
                hint="name a new folder with --to",
            )
        return _Asked(edited, questions, [row.answer for row in kept])
    started = time.monotonic()
    with reporter.progress("asking the base", len(questions), "questions") as progress:
        written = answers(edited.opened, questions, [None] * len(questions), progress.advance)
    asked = _Asked(edited, questions, written)
    rows = [judged(question, text, Reply(text)) for question, text in zip(questions, written, strict=True)]
    summary = _summary("the model without edits", rows, time.monotonic() - started)
    if edited.opened.routed.base.kind.generates:
        summary["ability"] = _ability(asked.base_ability)
    folder.keep(BASE, rows, summary)
    return asked


def _ask_method(method: Method, asked: _Asked, folder: BenchFolder, reporter: Reporter) -> None:
    opened = asked.edited.opened
    generates = opened.routed.base.kind.generates
    if generates and method.answers_prose:
        _ = asked.base_ability  # before a method moves the weights
    with method.ready(asked.edited, reporter) as ready:
        started = time.monotonic()
        with reporter.progress(f"asking {method.name}", len(asked.questions), "questions") as progress:
            replies = ready.reply(asked.questions, asked.base, progress.advance)
        seconds = time.monotonic() - started
        pairs = zip(asked.questions, asked.base, replies, strict=True)
        rows = [judged(question, base, reply) for question, base, reply in pairs]
        live = max(len(asked.edited.live), 1)
        summary = _summary(method.words, rows, seconds) | {
            "options": dict(method.options),
            "settings": dict(ready.settings),
            "seconds_an_edit": ready.seconds / live,
            "bytes_an_edit": ready.stored_bytes / live,
            "snapshot": None if ready.weights_changed else opened.project.snapshot,
        }
        if generates and method.answers_prose:
            after = ability(ready.opened, asked.base_ability, routed=not ready.weights_changed)
            summary["ability"] = _ability(after.edited) | {"fired": after.fired_texts + after.fired_questions}
    folder.keep(method.name, rows, summary)


def _ability(scores: AbilityScores) -> dict[str, Any]:
    return {"perplexity": scores.perplexity, "choices_right": scores.share_right}


def _summary(words: str, rows: Sequence[AnswerRow], seconds: float) -> dict[str, Any]:
    return {"words": words, "figures": figures(rows), "seconds_asking": seconds, "ability": None}


def _is_done(method: Method, snapshot: int, folder: BenchFolder, reporter: Reporter) -> bool:
    """Whether the folder has a method's answers, of the project as it is.

    Raises:
        MeloError: it has them with other options.
    """
    kept = folder.summary(method.name)
    if kept is not None and kept["options"] != dict(method.options):
        raise MeloError(
            f"the folder has {method.name} with {kept['options']}",
            where=str(folder.path),
            hint="name another folder with --to",
        )
    if kept is not None and kept["snapshot"] not in (snapshot, None):
        reporter.info(
            f"{method.name} is asked again: the project has changed since snapshot {kept['snapshot']}"
        )
        return False
    return kept is not None
