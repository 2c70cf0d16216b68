"""Merges by one merge method, or by the best of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from melo_cli.exporting.merging.checkpoint import changed_model
from melo_cli.exporting.merging.methods.method import Learns, Merge, MergeMethod
from melo_cli.exporting.merging.retention import Figures, Retention, load_checkpoint
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
# A more expensive method must keep `_WORTH` more; it is not tried if a cheaper one keeps `_ENOUGH`.
_WORTH = 0.01
_ENOUGH = 0.9


def merge(
    opened: OpenProject, methods: Sequence[MergeMethod], settings: ExampleSettings, reporter: Reporter
) -> Merge:
    """Find weights that hold the edits, by the only method or by the best of several.

    Args:
        opened: the project, opened.
        methods: the cheapest first. Several methods are tried until one keeps enough; the cheapest of those
            that keep nearly the most is taken. Methods that do not fit the base or the examples are left out.
        settings: settings of the training examples.
        reporter: shows progress.

    Raises:
        ExportError: the only method does not fit the base or the examples.
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
    return _merge_with(method, opened, examples, settings, reporter)


def kept(figures: Figures) -> float:
    """Retention of a merge as one share: the least of four.

    The four are edit success and generality, relative to the routed model, and agreement with the base on
    unrelated and on hard prompts.
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
    # If no method learns from prompts alone, all share one set of examples.
    unanswered = any(method.learns is Learns.PROMPTS for method in fitting)
    known: dict[bool, TrainingExamples] = {}
    tried: list[tuple[float, Merge]] = []
    retention: Retention | None = None
    for method in fitting:
        started = time.monotonic()
        answered = method.learns is Learns.ANSWERS or not unanswered
        if answered not in known:
            known[answered] = make_training_examples(opened, settings, reporter, answered=answered)
        examples = known[answered]
        if method.objection(base, examples) is not None:
            continue
        merged = _merge_with(method, opened, examples, settings, reporter)
        seconds = time.monotonic() - started
        retention = retention or Retention(opened, _COMPARED_ON, examples.taught, reporter)
        base_copy = load_checkpoint(opened, base.folder).float()
        share = kept(retention.of(changed_model(base_copy, merged.changes)))
        reporter.info(f"{method.name}: keeps {share:.3f}, {seconds:.1f} s")
        tried.append((share, merged))
        if share >= _ENOUGH:
            break
    best = max(share for share, _ in tried)
    chosen = next(merged for share, merged in tried if share >= best - _WORTH)
    among = f"Chosen among {len(tried)} ways, on up to {_COMPARED_ON} of each kind of prompts below."
    return replace(chosen, described=f"{chosen.described} {among}") if len(tried) > 1 else chosen


def _merge_with(
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
