"""Runs one baseline: its edits made on the project's base model, its probes asked, the model put back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from melo_cli.evaluation.answer_probes import answer_again
from melo_cli.evaluation.baselines.baseline import Baseline, EditedModel
from melo_cli.evaluation.probing import ask_anew, ask_routed
from melo_cli.evaluation.report import AnswerSets, BaselineReport, metrics
from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject


def run_baseline(
    baseline: Baseline, opened: OpenProject, sets: AnswerSets, reporter: Reporter
) -> BaselineReport:
    """Make the same edits with another editor, and ask it the same probes.

    Like melo it edits only what the base has wrong, each edit once, in the order made and in batches of the
    recipe's size, and is asked after the last. The base model is as before afterwards, weight by weight.

    Args:
        baseline: the editor with its settings.
        opened: the project, opened.
        sets: the answers of the base, to which the baseline's are compared.
        reporter: shows progress.

    Returns:
        Its figures, settings and seconds.
    """
    wrong = [row.probe for row in sets.edits if not row.right(row.base)]
    edits = [opened.encoder.edit(probe.prompt, probe.truth or "") for probe in wrong]
    edit_ids = [probe.edit_id or "" for probe in wrong]
    with edits_made(baseline, opened, edits, edit_ids, reporter) as (changed, train_seconds):
        trained = time.monotonic()
        again = ask_routed if baseline.routes else ask_anew
        answered = answer_again(changed.opened, sets, again, reporter, label=f"asking {baseline.name}")
        asked = time.monotonic()
    return BaselineReport(
        metrics(answered, opened.routed.base.kind, edited=True),
        settings={"batch_size": opened.recipe.training.batch_size} | changed.settings | {"edits": len(edits)},
        train_seconds=train_seconds,
        ask_seconds=asked - trained,
    )


@contextmanager
def edits_made(
    baseline: Baseline,
    opened: OpenProject,
    edits: Sequence[EncodedEdit],
    edit_ids: Sequence[str],
    reporter: Reporter,
) -> Iterator[tuple[EditedModel, float]]:
    """Inside the `with` statement the base model has the edits; afterwards it is as before.

    Args:
        baseline: the editor with its settings.
        opened: the project whose base model is edited.
        edits: the edits, made in batches of the recipe's size.
        edit_ids: their ids, in order.
        reporter: shows progress.

    Returns:
        The edited model, and the seconds that the edits took.
    """
    size = opened.recipe.training.batch_size
    batches = [edits[start : start + size] for start in range(0, len(edits), size)]
    started = time.monotonic()
    with ExitStack() as undone_afterwards:
        with reporter.progress(f"training {baseline.name}", len(edits), "edits") as progress:
            edited = baseline.edited(opened, batches, edit_ids, progress)
            changed = undone_afterwards.enter_context(edited)
        yield changed, time.monotonic() - started
