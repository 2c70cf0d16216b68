"""What an evaluation asks: edits, their rephrases, unrelated prompts, hard negatives, accurate text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from melo_cli.datasets import load_accurate, load_hard, load_locality
from melo_cli.errors import PromptError
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from melo_cli.variants import is_hard_locality, plain, subject_swaps
from store.records import EditView

Seen = Callable[[str], bool]

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
    """All probes of one evaluation, in the order in which the edits were made.

    Attributes:
        seen_unrelated: unrelated prompts that calibration has used; they are not asked.
    """

    edits: list[Probe]
    rephrases: list[Probe]
    unrelated: list[Probe]
    hard: list[Probe]
    accurate: list[Probe]
    seen_unrelated: list[Probe]

    def groups(self) -> list[list[Probe]]:
        """The five groups, in the order of `results.KINDS`."""
        return [self.edits, self.rephrases, self.unrelated, self.hard, self.accurate]


def nothing_seen(_prompt: str) -> bool:
    """The `seen` of a project that was never calibrated."""
    return False


def collect_probes(
    opened: OpenProject, reporter: Reporter, *, seen: Seen = nothing_seen, hard: bool = True
) -> ProbeSet:
    """Probes of every live edit: superseded and reverted ones ask for nothing any more.

    A hard negative reads like an edit and is about something else. An edit's own locality prompts are hard
    in task counterfact, whose rows give another subject of the same relation there, and in other tasks where
    they have the edit's words around its subject. Beside these come the prompts of `dataset.hard`, or, where
    it is null, for each edit without such a prompt its own question about the subject of another edit, which
    asks something else of it; drawn by the recipe's seed.

    Unrelated prompts are the other locality prompts of edits and those of `dataset.locality`. Each prompt is
    asked once; one that is itself the prompt or a rephrase of an edit is left out, with a word.

    Args:
        seen: whether calibration has used a text. Such rephrases, unrelated prompts and hard negatives are
            left out, with a word on how many; edits are always asked.
        hard: False leaves hard negatives out.
    """
    live = live_edits(opened)
    edits = [Probe(edit.prompt, edit.target, edit.edit_id) for edit in live]
    rephrases = [Probe(text, edit.target, edit.edit_id) for edit in live for text in edit.record.rephrases]
    near, far = _own_locality(live, opened.recipe.task)
    related = {probe.prompt for probe in (*edits, *rephrases)}
    unrelated = _apart(far + _locality_of_data(opened, reporter), related, "unrelated prompts", reporter)
    near = _apart(near, related, "hard negatives", reporter) if hard else []
    if hard and (given := _hard_of_data(opened, live, reporter)):
        near += given
    elif hard:  # what calibration saw of an edit is its question, too
        near += _swaps(opened, [edit for edit in live if not seen(edit.prompt)], near)
    near_prompts = {probe.prompt for probe in near}
    unrelated = [probe for probe in unrelated if probe.prompt not in near_prompts]
    asked = {"rephrases": rephrases, "unrelated prompts": unrelated, "hard negatives": _distinct(near)}
    fresh = {name: [probe for probe in probes if not seen(probe.prompt)] for name, probes in asked.items()}
    dropped = {name: len(probes) - len(fresh[name]) for name, probes in asked.items()}
    if any(dropped.values()):
        counts = ", ".join(f"{count} {name}" for name, count in dropped.items() if count)
        reporter.info(f"left out, because calibration has seen them: {counts}")
    return ProbeSet(
        edits,
        fresh["rephrases"],
        fresh["unrelated prompts"],
        fresh["hard negatives"],
        _accurate(opened, reporter),
        [probe for probe in unrelated if seen(probe.prompt)],
    )


def live_edits(opened: OpenProject) -> list[EditView]:
    """The edits that a project answers for: of each prompt the newest, whether or not it took."""
    views = [edit for edit in opened.project.edits() if edit.status != "reverted"]
    newest = {edit.prompt: edit.edit_id for edit in views}
    return [edit for edit in views if edit.status in _LIVE and edit.edit_id == newest[edit.prompt]]


def _own_locality(live: Sequence[EditView], task: str) -> tuple[list[Probe], list[Probe]]:
    """The edits' own locality prompts: hard ones, and the rest."""
    near: list[Probe] = []
    far: list[Probe] = []
    for edit in live:
        for prompt, truth in edit.record.locality:
            (near if is_hard_locality(edit.record, prompt, task) else far).append(
                Probe(prompt, truth, edit.edit_id)
            )
    return near, far


def _swaps(opened: OpenProject, live: Sequence[EditView], near: Sequence[Probe]) -> list[Probe]:
    provided = {probe.edit_id for probe in near}
    swaps = subject_swaps([edit.record for edit in live], seed=opened.recipe.seed)
    return [
        Probe(swap, None, edit.edit_id)
        for edit, swap in zip(live, swaps, strict=True)
        if swap is not None and edit.edit_id not in provided and _fits(opened, swap)
    ]


def _hard_of_data(opened: OpenProject, live: Sequence[EditView], reporter: Reporter) -> list[Probe]:
    """The prompts of `dataset.hard` whose subjects no edit is about."""
    dataset = opened.recipe.dataset
    if dataset is None:
        return []
    edited = {plain(edit.record.subject) for edit in live if edit.record.subject}
    rows = load_hard(dataset, opened.recipe.task, reporter)
    free = [row for row in rows if row.subject is None or plain(row.subject) not in edited]
    return [Probe(row.prompt, None) for row in free if _fits(opened, row.prompt)]


def _fits(opened: OpenProject, prompt: str) -> bool:
    """Whether the model takes a prompt: a longer subject may carry it over the limit."""
    try:
        opened.encoder.prompt(prompt)
    except PromptError:
        return False
    return True


def _locality_of_data(opened: OpenProject, reporter: Reporter) -> list[Probe]:
    dataset = opened.recipe.dataset
    if dataset is None or dataset.locality is None:
        return []
    return [Probe(prompt, truth) for prompt, truth in load_locality(dataset, opened.recipe.task, reporter)]


def _accurate(opened: OpenProject, reporter: Reporter) -> list[Probe]:
    dataset = opened.recipe.dataset
    if dataset is None or dataset.accurate is None:
        return []
    return [Probe(prompt, text) for prompt, text in load_accurate(dataset, opened.recipe.task, reporter)]


def _apart(probes: Sequence[Probe], related: set[str], named: str, reporter: Reporter) -> list[Probe]:
    """Without the prompts that edits are about, each once."""
    taken = len({probe.prompt for probe in probes} & related)
    if taken:
        reporter.info(f"{taken} {named} are prompts of edits too and are left out")
    return _distinct(probe for probe in probes if probe.prompt not in related)


def _distinct(probes: Iterable[Probe]) -> list[Probe]:
    return list({probe.prompt: probe for probe in reversed(list(probes))}.values())[::-1]
