"""`melo eval`: one project, after all its edits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from melo_cli.calibration import SeenPrompts
from melo_cli.errors import StorageError
from melo_cli.evaluation.answer_probes import answer_probes
from melo_cli.evaluation.baselines import Baseline, run_baseline
from melo_cli.evaluation.probes import collect_probes, live_edits, nothing_seen
from melo_cli.evaluation.probing import unfired_again
from melo_cli.evaluation.protocols import PAPER, STRICT, published
from melo_cli.evaluation.report import AnswerSets, EvalReport, metrics
from melo_cli.evaluation.results import KINDS, Result, results_of
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Inference
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import Verified, probability
from melo_store.evaluation import keep_evaluation


def evaluate(
    opened: OpenProject,
    reporter: Reporter,
    *,
    protocol: str = STRICT,
    baselines: Sequence[Baseline] = (),
    sample: int | None = None,
    inference: Inference | None = None,
) -> EvalReport:
    """Ask every probe of the base and of the edited model, and count.

    Args:
        protocol: `strict` leaves out what calibration has seen and asks what is near the edits; `paper` asks
            all rephrases and unrelated prompts and adds the published figures as `published` to METRICS.
        baselines: other editors to measure on the same edits and probes, in this process.
        sample: number of edits to ask of, drawn by the recipe's seed; None asks of all.
        inference: what asks base and edited model; None asks in this process.

    Raises:
        ProjectError: the project has no edit to measure.
    """
    strict = protocol == STRICT
    seen = SeenPrompts(opened.project.key_map) if strict else nothing_seen
    probes = collect_probes(opened, reporter, seen=seen, near=strict, sample=sample)
    asked = replace(opened, inference=inference or opened.inference)
    started = time.monotonic()
    sets = answer_probes(asked, probes, reporter)
    seconds = time.monotonic() - started
    kind, task = opened.routed.base.kind, opened.recipe.task
    figures = {"base": metrics(sets, kind, edited=False), "edited": metrics(sets, kind, edited=True)}
    checked, agree = unfired_again(asked, [row for group in sets.groups()[:-1] for row in group])
    figures["edited"] |= {"unfired_checked": checked, "unfired_agree": agree}
    others = {each.name: run_baseline(each, opened, sets, reporter) for each in baselines}
    if protocol == PAPER:
        for model in (*figures.values(), *(other.figures for other in others.values())):
            model["published"] = published(task, model)
    return EvalReport(
        project=opened.project.name,
        task=task,
        snapshot=opened.project.snapshot,
        protocol=protocol,
        model=opened.project.base.describe(),
        edits=len(sets.edits),
        base=figures["base"],
        edited=figures["edited"],
        seconds=seconds,
        results=_results(opened, sets),
        sampled_from=len(live_edits(opened)) if sample is not None else None,
        baselines=others,
    )


def keep(report: EvalReport, opened: OpenProject, reporter: Reporter) -> None:
    """Keep the figures in the project, for `melo status` and the page of `melo serve`."""
    try:
        keep_evaluation(opened.project.path, report.to_json())
    except StorageError as error:
        reporter.info(f"the figures are not kept in the project: {error}")


def _results(opened: OpenProject, sets: AnswerSets) -> list[Result]:
    rule = opened.routed.router.rule
    threshold = probability(rule.threshold) if isinstance(rule, Verified) else None
    return [
        row
        for kind, group in zip(KINDS, sets.groups(), strict=True)
        for row in results_of(kind, group, threshold)
    ]
