"""Asks all probes of an evaluation, group by group, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from melo_cli.errors import ProjectError
from melo_cli.evaluation.probes import Probe, ProbeSet
from melo_cli.evaluation.probing import Answered, ask
from melo_cli.evaluation.report import AnsweredSets
from melo_cli.reporter import Reporter
from melo_cli.runtime.inference import Advance
from melo_cli.runtime.loading import OpenProject

Asked = TypeVar("Asked", list[Probe], list[Answered])


class Again(Protocol):
    """Asks probes again that were asked before."""

    def __call__(
        self, opened: OpenProject, rows: Sequence[Answered], advance: Advance, *, generate: bool
    ) -> list[Answered]: ...


def answer_probes(opened: OpenProject, probes: ProbeSet, reporter: Reporter) -> AnsweredSets:
    """Both models' answers to all probes.

    Raises:
        ProjectError: there is no edit among them.
    """
    if not probes.edits:
        raise ProjectError(
            "the project has no live edit", where=str(opened.project.path), mend="make some with `melo edit`"
        )
    with _progress(reporter, "asking", probes.groups()) as advance:
        return _each(probes.groups(), lambda group, generate: ask(opened, group, advance, generate=generate))


def answer_again(
    opened: OpenProject, sets: AnsweredSets, again: Again, reporter: Reporter, label: str = "asking"
) -> AnsweredSets:
    """The same probes with other answers in the edited model's place.

    Args:
        again: `probing.ask_anew` for those of the weights as they are now, `probing.ask_routed` for those
            that the routes and blocks of `opened.asker` give.
    """
    with _progress(reporter, label, sets.groups()) as advance:
        return _each(sets.groups(), lambda group, generate: again(opened, group, advance, generate=generate))


def _each(groups: Sequence[Asked], ask: Callable[[Asked, bool], list[Answered]]) -> AnsweredSets:
    """Every group asked; the last one, accurate text, is scored but not answered."""
    edits, rephrases, same_subject, hard, unrelated = (ask(group, True) for group in groups[:-1])
    return AnsweredSets(edits, rephrases, same_subject, hard, unrelated, ask(groups[-1], False))


@contextmanager
def _progress(
    reporter: Reporter, label: str, groups: Sequence[Sequence[object]]
) -> Iterator[Callable[[int], None]]:
    with reporter.progress(label, sum(len(group) for group in groups), "prompts") as progress:
        yield lambda count: progress.advance(count)
