"""What an evaluation asks: edits, their rephrases, unrelated prompts, accurate text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melo_cli.datasets import load_accurate, load_locality
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from store.records import EditView

_LIVE = ("live", "already_right", "failed")


@dataclass(frozen=True)
class Probe:
    """One prompt to ask.

    Attributes:
        truth: the answer that counts as right; None where only agreement with the base can be told.
        edit_id: the edit that the probe belongs to, if any.
    """

    prompt: str
    truth: str | None
    edit_id: str | None = None


@dataclass(frozen=True)
class ProbeSet:
    """All probes of one evaluation, in the order in which the edits were made."""

    edits: list[Probe]
    rephrases: list[Probe]
    unrelated: list[Probe]
    accurate: list[Probe]


def collect_probes(opened: OpenProject, reporter: Reporter) -> ProbeSet:
    """Probes of every live edit: superseded and reverted ones ask for nothing any more.

    Unrelated prompts are the edits' own locality prompts and those of `dataset.locality`, each asked once;
    one that is itself the prompt or a rephrase of an edit is not unrelated and is left out, with a word.
    """
    views = [edit for edit in opened.project.edits() if edit.status != "reverted"]
    newest = {edit.prompt: edit.target for edit in views}
    live = [edit for edit in views if edit.status in _LIVE and edit.target == newest[edit.prompt]]
    edits = [Probe(edit.prompt, edit.target, edit.edit_id) for edit in live]
    rephrases = [Probe(text, edit.target, edit.edit_id) for edit in live for text in edit.record.rephrases]
    dataset = opened.recipe.dataset
    unrelated = _own_locality(live)
    if dataset is not None and dataset.locality is not None:
        unrelated += [
            Probe(prompt, truth) for prompt, truth in load_locality(dataset, opened.recipe.task, reporter)
        ]
    related = {probe.prompt for probe in (*edits, *rephrases)}
    kept = _distinct(probe for probe in unrelated if probe.prompt not in related)
    taken = len({probe.prompt for probe in unrelated} & related)
    if taken:
        reporter.info(f"{taken} unrelated prompts are prompts of edits too and are left out")
    accurate = []
    if dataset is not None and dataset.accurate is not None:
        accurate = [
            Probe(prompt, text) for prompt, text in load_accurate(dataset, opened.recipe.task, reporter)
        ]
    return ProbeSet(edits, rephrases, kept, accurate)


def _own_locality(live: Sequence[EditView]) -> list[Probe]:
    return [Probe(prompt, truth, edit.edit_id) for edit in live for prompt, truth in edit.record.locality]


def _distinct(probes: Iterable[Probe]) -> list[Probe]:
    return list({probe.prompt: probe for probe in reversed(list(probes))}.values())[::-1]
