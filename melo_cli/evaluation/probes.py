"""The probes of an evaluation: edits, their rephrases, and prompts that must not change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

from melo_cli.datasets import aliases_in, load_accurate, load_hard, load_locality
from melo_cli.errors import PromptError
from melo_cli.evaluation.same_subject import questions_of_others
from melo_cli.evaluation.statistics import drawn
from melo_cli.models.class_labels import class_name
from melo_cli.paraphrase.subject_swaps import (
    asks_of_same_subject,
    is_hard_locality,
    normalized,
    subject_swaps,
)
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.records import EditView

Seen = Callable[[str], bool]

_LIVE = ("live", "already_right", "failed")


@dataclass(frozen=True)
class Probe:
    """One prompt to ask.

    Attributes:
        truth: the answer that counts as right; None if only agreement with the base can be measured.
        aliases: other answers that count as right beside it.
        edit_id: the edit that the probe belongs to, if any.
        made: whether it was made out of edits; else the data give it.
    """

    prompt: str
    truth: str | None
    edit_id: str | None = None
    made: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeSet:
    """All probes of one evaluation, in the order in which the edits were made.

    Attributes:
        seen_unrelated: unrelated prompts that calibration has used; they are not asked.
    """

    edits: list[Probe]
    rephrases: list[Probe]
    same_subject: list[Probe]
    hard: list[Probe]
    unrelated: list[Probe]
    accurate: list[Probe]
    seen_unrelated: list[Probe]

    def groups(self) -> list[list[Probe]]:
        """The groups in the order of `results.KINDS`."""
        return [self.edits, self.rephrases, self.same_subject, self.hard, self.unrelated, self.accurate]


def nothing_seen(_prompt: str) -> bool:
    """The `seen` of a project that was never calibrated."""
    return False


def collect_probes(
    opened: OpenProject,
    reporter: Reporter,
    *,
    seen: Seen = nothing_seen,
    near: bool = True,
    sample: int | None = None,
) -> ProbeSet:
    """Probes of the live edits: superseded and reverted ones ask for nothing any more.

    What must stay comes in three kinds, by how near it is to an edit:

    - `same_subject` asks something else about an edit's subject: an edit's own locality prompts that name it.
      For an edit without such a prompt another edit's question is asked about its subject.
    - `hard` reads like an edit and is about something else. An edit's own locality prompts are hard in task
      counterfact, whose rows give another subject of the same relation there, and in other tasks where they
      have the edit's words around its subject. Beside these come the prompts of `dataset.hard`, or, where it
      is null, for each edit without such a prompt its own question about the subject of another edit.
    - `unrelated` are the other locality prompts of edits and those of `dataset.locality`.

    What is made of edits is drawn by the recipe's seed, and asks of a subject only what no edit of that
    subject does; calibration has its negatives from elsewhere. Each prompt is asked once; one that is itself
    the prompt or a rephrase of an edit is left out, with a word.

    Args:
        seen: whether calibration has used a text. Such rephrases and negatives are left out, with a word on
            how many; edits are always asked.
        near: False leaves out what is hard or made, and takes what is of the same subject as unrelated.
        sample: number of edits to ask of, drawn by the recipe's seed; None asks of all.
    """
    every = live_edits(opened)
    live = _drawn(every, sample, opened.recipe.seed)
    asked_of = {edit.edit_id for edit in live}
    edits = [_probe(edit, edit.prompt) for edit in live]
    rephrases = [_probe(edit, text) for edit in live for text in edit.record.rephrases]
    same_subject, hard, far = _own_locality(live, opened.recipe.task)
    if not near:
        far += same_subject
    related = {text for edit in every for text in (edit.prompt, *edit.record.rephrases)}
    unrelated = _without_related(
        far + _locality_of_data(opened, reporter), related, "unrelated prompts", reporter
    )
    if near:
        # What calibration saw of an edit is its question, too.
        fresh = [edit for edit in every if not seen(edit.prompt)]
        hard = _without_related(hard, related, "hard negatives", reporter)
        hard += _hard_of_data(opened, every, reporter) or _swaps(opened, fresh, hard, asked_of)
        same_subject = _without_related(same_subject, related, "same-subject prompts", reporter)
        same_subject += _others_questions(opened, fresh, same_subject, hard, asked_of)
    asked = _each_once(
        {
            "rephrases": rephrases,
            "same-subject prompts": same_subject if near else [],
            "hard negatives": hard if near else [],
            "unrelated prompts": unrelated,
        }
    )
    kept = {name: [probe for probe in probes if not seen(probe.prompt)] for name, probes in asked.items()}
    _report_seen_prompts(asked, kept, reporter)
    return ProbeSet(
        edits,
        kept["rephrases"],
        kept["same-subject prompts"],
        kept["hard negatives"],
        kept["unrelated prompts"],
        _accurate(opened, reporter),
        [probe for probe in asked["unrelated prompts"] if seen(probe.prompt)],
    )


def _each_once(asked: dict[str, list[Probe]]) -> dict[str, list[Probe]]:
    """No prompt in two of the groups that must stay, and none twice in one of them: the first one has it."""
    taken: set[str] = set()
    kept = {"rephrases": asked["rephrases"]}
    for name in ("same-subject prompts", "hard negatives", "unrelated prompts"):
        kept[name] = [probe for probe in _distinct(asked[name]) if probe.prompt not in taken]
        taken |= {probe.prompt for probe in kept[name]}
    return kept


def _report_seen_prompts(
    asked: dict[str, list[Probe]], kept: dict[str, list[Probe]], reporter: Reporter
) -> None:
    dropped = {name: len(probes) - len(kept[name]) for name, probes in asked.items()}
    if any(dropped.values()):
        counts = ", ".join(f"{count} {name}" for name, count in dropped.items() if count)
        reporter.info(f"left out, because calibration has seen them: {counts}")


def live_edits(opened: OpenProject) -> list[EditView]:
    """The edits that a project answers for: of each prompt the newest, whether or not it took."""
    views = [edit for edit in opened.project.edits() if edit.status != "reverted"]
    newest = {edit.prompt: edit.edit_id for edit in views}
    return [edit for edit in views if edit.status in _LIVE and edit.edit_id == newest[edit.prompt]]


def _drawn(live: list[EditView], sample: int | None, seed: int) -> list[EditView]:
    """A sample of the edits, in the order in which they were made."""
    if sample is None:
        return live
    return [live[at] for at in drawn(len(live), sample, f"{seed}: sample")]


def _probe(edit: EditView, prompt: str) -> Probe:
    """A prompt that is to get the edit's answer."""
    return Probe(prompt, edit.target, edit.edit_id, aliases=aliases_in(edit.record.metadata))


def _own_locality(live: Sequence[EditView], task: str) -> tuple[list[Probe], list[Probe], list[Probe]]:
    """The edits' own locality prompts: of the same subject, hard ones, and the rest."""
    same_subject: list[Probe] = []
    hard: list[Probe] = []
    far: list[Probe] = []
    for edit in live:
        for prompt, truth in edit.record.locality:
            if asks_of_same_subject(edit.record, prompt):
                kind = same_subject
            else:
                kind = hard if is_hard_locality(edit.record, prompt, task) else far
            kind.append(Probe(prompt, truth, edit.edit_id))
    return same_subject, hard, far


def _swaps(
    opened: OpenProject, live: Sequence[EditView], near: Sequence[Probe], asked_of: Set[str]
) -> list[Probe]:
    swaps = subject_swaps([edit.record for edit in live], seed=opened.recipe.seed)
    return _made(opened, live, swaps, near, asked_of)


def _others_questions(
    opened: OpenProject,
    live: Sequence[EditView],
    given: Sequence[Probe],
    hard: Sequence[Probe],
    asked_of: Set[str],
) -> list[Probe]:
    taken = [probe.prompt for probe in (*given, *hard)]
    asked = questions_of_others([edit.record for edit in live], taken, seed=opened.recipe.seed)
    return _made(opened, live, asked, given, asked_of)


def _made(
    opened: OpenProject,
    live: Sequence[EditView],
    texts: Sequence[str | None],
    given: Sequence[Probe],
    asked_of: Set[str],
) -> list[Probe]:
    """Probes of what was made for each edit of `asked_of` that the data give none of."""
    wanted = asked_of - {probe.edit_id for probe in given}
    return [
        Probe(text, None, edit.edit_id, made=True)
        for edit, text in zip(live, texts, strict=True)
        if text is not None and edit.edit_id in wanted and _fits(opened, text)
    ]


def _hard_of_data(opened: OpenProject, live: Sequence[EditView], reporter: Reporter) -> list[Probe]:
    """The prompts of `dataset.hard` whose subjects no edit is about."""
    dataset = opened.recipe.dataset
    if dataset is None:
        return []
    edited = {normalized(edit.record.subject) for edit in live if edit.record.subject}
    rows = load_hard(dataset, opened.recipe.task, reporter)
    free = [row for row in rows if row.subject is None or normalized(row.subject) not in edited]
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
    base = opened.routed.base
    return [
        Probe(prompt, None if truth is None else class_name(base, truth))
        for prompt, truth in load_locality(dataset, opened.recipe.task, reporter)
    ]


def _accurate(opened: OpenProject, reporter: Reporter) -> list[Probe]:
    dataset = opened.recipe.dataset
    if dataset is None or dataset.accurate is None:
        return []
    return [Probe(prompt, text) for prompt, text in load_accurate(dataset, opened.recipe.task, reporter)]


def _without_related(
    probes: Sequence[Probe], related: set[str], named: str, reporter: Reporter
) -> list[Probe]:
    """The probes without the prompts of edits, and without repetition."""
    taken = len({probe.prompt for probe in probes} & related)
    if taken:
        reporter.info(f"{taken} {named} are prompts of edits too and are left out")
    return _distinct(probe for probe in probes if probe.prompt not in related)


def _distinct(probes: Iterable[Probe]) -> list[Probe]:
    return list({probe.prompt: probe for probe in reversed(list(probes))}.values())[::-1]
