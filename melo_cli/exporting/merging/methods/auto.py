"""Merges by one method, or by the best of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from melo_cli.exporting.merging.checkpoint import changed_model
from melo_cli.exporting.merging.methods.method import Learns, Merge, MergeMethod
from melo_cli.exporting.merging.retention import Figures, Measure, load_plain
from melo_cli.exporting.merging.training_examples import (
    NO_EXAMPLES,
    ExampleSettings,
    TrainingExamples,
    make_training_examples,
)
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

# How many probes of each kind several methods are compared on.
_COMPARED_ON = 200
# A dearer method must keep this much more, and is not tried where a cheaper one keeps so much.
_WORTH = 0.01
_ENOUGH = 0.9


def merge(
    opened: OpenProject, methods: Sequence[MergeMethod], settings: ExampleSettings, reporter: Reporter
) -> Merge:
    """Find weights that hold the edits, by the only method or by the best of several.

    Args:
        methods: the cheapest first. Of several each is tried until one keeps enough; taken is the cheapest
            that keeps like the best. Those that the base or the examples do not allow are left out.

    Raises:
        ExportError: the only method does not allow it.
    """
    if len(methods) > 1:
        return _best(opened, methods, settings, reporter)
    [method] = methods
    _require(method.objection(opened.routed.base))
    examples = NO_EXAMPLES
    if method.learns is not Learns.NOTHING:
        answered = method.learns is Learns.ANSWERS
        examples = make_training_examples(opened, settings, reporter, answered=answered)
    _require(method.objection(opened.routed.base, examples))
    return _found(method, opened, examples, settings, reporter)


def kept(figures: Figures) -> float:
    """How much of the routed model a merged one keeps, as one share: the least of its four virtues.

    Edit success and generality count relative to the routed model's; agreement with the base on unrelated
    prompts and on hard negatives as it is.
    """
    merged, routed = figures["merged"], figures["routed"]
    shares = [
        merged[metric]["generation"] / routed[metric]["generation"]
        for metric in ("edit_success", "generality")
        if merged[metric] is not None and routed[metric]["generation"]
    ]
    shares += [
        merged[metric]["generation"]
        for metric in ("locality_agreement", "hard_agreement")
        if merged[metric] is not None
    ]
    return min(shares, default=0.0)


def _best(
    opened: OpenProject, methods: Sequence[MergeMethod], settings: ExampleSettings, reporter: Reporter
) -> Merge:
    base = opened.routed.base
    fitting = [method for method in methods if method.objection(base) is None]
    # Where no method learns from prompts alone, one set of examples serves all.
    unanswered = any(method.learns is Learns.PROMPTS for method in fitting)
    known: dict[bool, TrainingExamples] = {}
    tried: list[tuple[float, Merge]] = []
    measured: Measure | None = None
    for method in fitting:
        started = time.monotonic()
        answered = method.learns is Learns.ANSWERS or not unanswered
        if answered not in known:
            known[answered] = make_training_examples(opened, settings, reporter, answered=answered)
        examples = known[answered]
        if method.objection(base, examples) is not None:
            continue
        found = _found(method, opened, examples, settings, reporter)
        seconds = time.monotonic() - started
        measured = measured or Measure(opened, _COMPARED_ON, examples.taught, reporter)
        plain = load_plain(opened, base.folder).float()
        share = kept(measured.of(changed_model(plain, found.changes)))
        reporter.info(f"{method.name}: keeps {share:.3f}, {seconds:.1f} s")
        tried.append((share, found))
        if share >= _ENOUGH:
            break
    best = max(share for share, _ in tried)
    chosen = next(found for share, found in tried if share >= best - _WORTH)
    among = f"Chosen among {len(tried)} ways, on up to {_COMPARED_ON} of each kind of prompts below."
    return replace(chosen, described=f"{chosen.described} {among}") if len(tried) > 1 else chosen


def _found(
    method: MergeMethod,
    opened: OpenProject,
    examples: TrainingExamples,
    settings: ExampleSettings,
    reporter: Reporter,
) -> Merge:
    changes = method.find(opened, examples, settings.seed, reporter)
    return Merge(method.name, changes, method.describe(), examples.taught)


def _require(objection: Exception | None) -> None:
    if objection is not None:
        raise objection
