"""`melo eval`: one project, after all its edits, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from melo_cli.errors import ProjectError
from melo_cli.evaluation.asking import ask, ask_anew
from melo_cli.evaluation.probes import ProbeSet, collect_probes
from melo_cli.evaluation.report import AnsweredSets, EvalReport, edit_rows, metrics
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter

# After all edits: rephrases unseen in training, greedy exact match, agreement with the unedited model.
STRICT = "strict"


def evaluate(opened: OpenProject, reporter: Reporter) -> EvalReport:
    """Ask every probe of the base and of the edited model, and count.

    Raises:
        ProjectError: the project has no edit to measure.
    """
    sets = answer_probes(opened, collect_probes(opened, reporter), reporter)
    kind = opened.routed.base.kind
    return EvalReport(
        project=opened.project.name,
        task=opened.recipe.task,
        snapshot=opened.project.snapshot,
        protocol=STRICT,
        edits=len(sets.edits),
        base=metrics(sets, kind, edited=False),
        edited=metrics(sets, kind, edited=True),
        results=edit_rows(sets.edits),
    )


def answer_probes(opened: OpenProject, probes: ProbeSet, reporter: Reporter) -> AnsweredSets:
    """Both models' answers to all probes.

    Raises:
        ProjectError: there is no edit among them.
    """
    if not probes.edits:
        raise ProjectError(
            "the project has no live edit", where=str(opened.project.path), mend="make some with `melo edit`"
        )
    with _progress(reporter, probes.edits, probes.rephrases, probes.unrelated, probes.accurate) as advance:
        return AnsweredSets(
            ask(opened, probes.edits, advance),
            ask(opened, probes.rephrases, advance),
            ask(opened, probes.unrelated, advance),
            ask(opened, probes.accurate, advance, generate=False),
        )


def answer_anew(opened: OpenProject, sets: AnsweredSets, reporter: Reporter) -> AnsweredSets:
    """The same probes with the answers of the weights as they are now in the edited model's place."""
    with _progress(reporter, sets.edits, sets.rephrases, sets.unrelated, sets.accurate) as advance:
        return AnsweredSets(
            ask_anew(opened, sets.edits, advance),
            ask_anew(opened, sets.rephrases, advance),
            ask_anew(opened, sets.unrelated, advance),
            ask_anew(opened, sets.accurate, advance, generate=False),
        )


@contextmanager
def _progress(reporter: Reporter, *groups: Sequence[object]) -> Iterator[Callable[[int], None]]:
    with reporter.progress("asking", sum(len(group) for group in groups), "prompts") as progress:
        yield lambda count: progress.advance(count)
