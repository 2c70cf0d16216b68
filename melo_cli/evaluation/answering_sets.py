"""Asks all probes of an evaluation, group by group, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from melo_cli.errors import ProjectError
from melo_cli.evaluation.asking import ask, ask_anew, ask_routed
from melo_cli.evaluation.probes import ProbeSet
from melo_cli.evaluation.report import AnsweredSets
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter


def answer_probes(opened: OpenProject, probes: ProbeSet, reporter: Reporter) -> AnsweredSets:
    """Both models' answers to all probes.

    Raises:
        ProjectError: there is no edit among them.
    """
    if not probes.edits:
        raise ProjectError(
            "the project has no live edit", where=str(opened.project.path), mend="make some with `melo edit`"
        )
    groups = (probes.edits, probes.rephrases, probes.unrelated, probes.hard, probes.accurate)
    with _progress(reporter, "asking", groups) as advance:
        return AnsweredSets(
            *(ask(opened, group, advance) for group in groups[:-1]),
            accurate=ask(opened, probes.accurate, advance, generate=False),
        )


def answer_anew(
    opened: OpenProject, sets: AnsweredSets, reporter: Reporter, label: str = "asking"
) -> AnsweredSets:
    """The same probes with the answers of the weights as they are now in the edited model's place."""
    with _progress(reporter, label, sets.groups()) as advance:
        return AnsweredSets(
            *(ask_anew(opened, group, advance) for group in sets.groups()[:-1]),
            accurate=ask_anew(opened, sets.accurate, advance, generate=False),
        )


def answer_routed(
    opened: OpenProject, sets: AnsweredSets, reporter: Reporter, label: str = "asking"
) -> AnsweredSets:
    """The same probes with the routes and answers of `opened.asker` in the edited model's place."""
    with _progress(reporter, label, sets.groups()) as advance:
        return AnsweredSets(
            *(ask_routed(opened, group, advance) for group in sets.groups()[:-1]),
            accurate=ask_routed(opened, sets.accurate, advance, generate=False),
        )


@contextmanager
def _progress(
    reporter: Reporter, label: str, groups: Sequence[Sequence[object]]
) -> Iterator[Callable[[int], None]]:
    with reporter.progress(label, sum(len(group) for group in groups), "prompts") as progress:
        yield lambda count: progress.advance(count)
