"""Asks all probes of an evaluation, group by group, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from melo_cli.errors import ProjectError
from melo_cli.evaluation.probes import Probe, ProbeSet
from melo_cli.evaluation.probing import ProbeAnswers, ask
from melo_cli.evaluation.report import AnswerSets
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject

Asked = TypeVar("Asked", list[Probe], list[ProbeAnswers])


class Again(Protocol):
    """Asks probes again that were asked before."""

    def __call__(
        self, opened: OpenProject, rows: Sequence[ProbeAnswers], advance: Advance, *, generate: bool
    ) -> list[ProbeAnswers]: ...


def answer_probes(opened: OpenProject, probes: ProbeSet, reporter: Reporter) -> AnswerSets:
    """Both models' answers to all probes.

    Args:
        opened: the project, opened.
        probes: the probes by kind.
        reporter: shows progress.

    Returns:
        The answers, in the groups of `probes`. Accurate text is scored and not answered.

    Raises:
        ProjectError: there is no edit among them.
    """
    if not probes.edits:
        raise ProjectError(
            "the project has no live edit", where=str(opened.project.path), hint="make edits with `melo edit`"
        )
    with _progress(reporter, "asking", probes.groups()) as advance:
        return _each(probes.groups(), lambda group, generate: ask(opened, group, advance, generate=generate))


def answer_again(
    opened: OpenProject, sets: AnswerSets, again: Again, reporter: Reporter, label: str = "asking"
) -> AnswerSets:
    """The same probes with other answers of the edited model.

    Args:
        opened: the project as it answers now.
        sets: the answers of the base; those of the edited model are replaced.
        again: `probing.ask_anew` for those of the weights as they are now, `probing.ask_routed` for those
            that the routes and blocks of `opened.inference` give.
        reporter: shows progress.
        label: name of the job.

    Returns:
        The answers, in the groups of `sets`.
    """
    with _progress(reporter, label, sets.groups()) as advance:
        return _each(sets.groups(), lambda group, generate: again(opened, group, advance, generate=generate))


def _each(groups: Sequence[Asked], ask: Callable[[Asked, bool], list[ProbeAnswers]]) -> AnswerSets:
    """Every group asked; the last one, accurate text, is scored but not answered."""
    edits, rephrases, same_subject, hard, unrelated = (ask(group, True) for group in groups[:-1])
    return AnswerSets(edits, rephrases, same_subject, hard, unrelated, ask(groups[-1], False))


@contextmanager
def _progress(
    reporter: Reporter, label: str, groups: Sequence[Sequence[object]]
) -> Iterator[Callable[[int], None]]:
    with reporter.progress(label, sum(len(group) for group in groups), "prompts") as progress:
        yield lambda count: progress.advance(count)
