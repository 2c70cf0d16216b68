"""Training examples of a merge: prompts, the block that answers each, and the answer."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from melo_cli.calibration import SeenPrompts, calibration_rows, learnable
from melo_cli.datasets import EditRequest
from melo_cli.errors import PromptError
from melo_cli.evaluation import collect_probes
from melo_cli.evaluation.probes import ProbeSet
from melo_cli.exporting.merging.phrasings import HardPrompts, phrasings
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.paraphrase.subject_swaps import normalized
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.records import EditView

# Number of hard prompts for each edit, and their largest total as a multiple of `ExampleSettings.unchanged`.
_NEAR_EACH, _MOST_NEAR = 20, 4
# Factor of their number if the base is not asked for its answers.
_MORE_UNANSWERED = 3
_LONGEST_NAME = 4
# Number of examples in one pass.
_ROWS = 32


@dataclass(frozen=True)
class TrainingExample:
    """One prompt with its answer.

    Attributes:
        encoded: prompt and answer as token ids.
        block: id of the block that answers; None for the base.
        made_up: whether the prompt is a paraphrase that melo made.
    """

    encoded: EncodedEdit
    block: str | None
    made_up: bool = False


@dataclass(frozen=True)
class TrainingExamples:
    """All training examples of a merge.

    Attributes:
        prompts: the edits' own prompts, with their targets.
        phrased: their variants, with the same targets.
        near: hard prompts, with the base's answers.
        far: unrelated text, with the base's answers.
        taught: those of the unrelated prompts that an evaluation would ask; it must leave them out.
    """

    prompts: list[TrainingExample]
    phrased: list[TrainingExample]
    near: list[TrainingExample]
    far: list[TrainingExample]
    taught: frozenset[str]

    @property
    def edits(self) -> list[TrainingExample]:
        """The examples that edits answer."""
        return [*self.prompts, *self.phrased]

    @property
    def others(self) -> list[TrainingExample]:
        """The examples that the base answers."""
        return [*self.near, *self.far]


NO_EXAMPLES = TrainingExamples([], [], [], [], frozenset())


@dataclass(frozen=True)
class ExampleSettings:
    """Settings of the training examples.

    Attributes:
        unrelated: unrelated text. If empty, the unrelated prompts that calibration has seen are used. If
            there are none of those, every second unrelated prompt of the project is used, and only the others
            are measured.
        phrasings: number of paraphrases of each edit's prompt, besides the known variants.
        unchanged: least number of hard prompts, and of unrelated texts.
        seed: seed of the paraphrases, and of everything that a merge method draws.
    """

    unrelated: tuple[str, ...] = ()
    phrasings: int = 12
    unchanged: int = 1000
    seed: int = 0


def batches(group: Sequence[TrainingExample]) -> Iterator[list[TrainingExample]]:
    """Batches of examples of similar length, so that there is little padding."""
    ordered = sorted(
        group, key=lambda example: len(example.encoded.prompt_ids) + len(example.encoded.target_ids)
    )
    return (ordered[start : start + _ROWS] for start in range(0, len(ordered), _ROWS))


def make_training_examples(
    opened: OpenProject, settings: ExampleSettings, reporter: Reporter, *, answered: bool = True
) -> TrainingExamples:
    """Make the training examples: variants, hard prompts and unrelated text, with the base's answers.

    A merge may learn from what calibration has seen: rephrases, whose frames carry over to other subjects,
    and unrelated prompts. Prompts that `melo eval` measures are left out, unless there is no other unrelated
    text.

    Args:
        opened: the project, opened.
        settings: settings of the examples.
        reporter: shows progress.
        answered: ask the base for its answers to hard and unrelated prompts; False leaves them empty, and
            makes more hard prompts.
    """
    drawn = random.Random(settings.seed)
    live = [edit for edit in opened.project.edits() if edit.status == "live"]
    known = learnable(opened.project, calibration_rows(opened.recipe, reporter))
    frames = QuestionFrames(known)
    probes = collect_probes(opened, reporter, seen=SeenPrompts(opened.project.key_map))
    texts, taught = _unrelated(opened, known, settings.unrelated, probes)
    texts += [edit.prompt for edit in opened.project.edits() if edit.status == "already_right"]
    measured = _measured(probes, taught)
    known_phrasings = [(edit, text) for edit in live for text in frames.of(edit.prompt, edit.record.subject)]
    phrased = _phrased(opened, live, known_phrasings, settings.phrasings, measured, drawn)
    excluded = {
        normalized(text) for text in (*(edit.prompt for edit in live), *(text for _, text in known_phrasings))
    } | measured
    answer = _as_the_base_answers if answered else _without_answers
    far = answer(opened, _filled(texts, settings.unchanged, excluded, drawn), reporter)
    names = [each.subject for each in known if each.subject] + _names(opened, far)
    hard_prompts = HardPrompts([edit.record for edit in live], names, texts, frames, drawn)
    wanted = min(max(settings.unchanged, _NEAR_EACH * len(live)), _MOST_NEAR * settings.unchanged)
    each = -(-wanted // len(live))
    each *= 1 if answered else _MORE_UNANSWERED
    alike = [text for edit in live for text in hard_prompts.of(edit.record, each, excluded)]
    near = answer(opened, alike, reporter)
    prompts = [TrainingExample(opened.encoder.edit(edit.prompt, edit.target), edit.block) for edit in live]
    return TrainingExamples(prompts, phrased, near, far, taught)


def _unrelated(
    opened: OpenProject, known: Sequence[EditRequest], given: Sequence[str], probes: ProbeSet
) -> tuple[list[str], frozenset[str]]:
    """Unrelated text, and those of its prompts that an evaluation would ask."""
    asked = [probe.prompt for probe in probes.unrelated]
    seen = [probe.prompt for probe in probes.seen_unrelated]
    if given:
        return list(given), frozenset(given) & frozenset(asked + seen)
    edit_prompts = {normalized(edit.prompt) for edit in opened.project.edits()}
    facts = [
        text
        for each in known
        if normalized(each.prompt) not in edit_prompts
        for text in (each.prompt, *each.rephrases)
    ]
    if seen or facts:
        return seen + facts, frozenset()
    return asked[::2], frozenset(asked[::2])


def _measured(probes: ProbeSet, taught: Collection[str]) -> set[str]:
    """The prompts that an evaluation asks besides the edits, as normalized texts."""
    asked = (*probes.rephrases, *probes.same_subject, *probes.hard, *probes.unrelated)
    return {normalized(probe.prompt) for probe in asked if probe.prompt not in taught}


def _phrased(
    opened: OpenProject,
    live: Sequence[EditView],
    known_phrasings: Sequence[tuple[EditView, str]],
    each: int,
    measured: Collection[str],
    drawn: random.Random,
) -> list[TrainingExample]:
    """The variants of the edits: the known ones, and paraphrases that the router sends to the edit's
    block."""
    made = [
        (edit, text)
        for edit in live
        for text in phrasings(edit.prompt, edit.record.subject, each, drawn)
        if _fits(opened, text)
    ]
    routes = opened.inference.routes([text for _, text in made])
    in_scope = [
        pair
        for pair, route in zip(made, routes, strict=True)
        if route.fired is not None and route.fired.block == pair[0].block
    ]
    return [
        TrainingExample(opened.encoder.edit(text, edit.target), edit.block, made_up)
        for made_up, pairs in ((False, known_phrasings), (True, in_scope))
        for edit, text in pairs
        if normalized(text) not in measured and _fits(opened, text)
    ]


def _filled(texts: Sequence[str], count: int, excluded: Collection[str], drawn: random.Random) -> list[str]:
    """Unrelated text, filled up to `count` with paraphrases of itself."""
    kept = [text for text in dict.fromkeys(texts) if normalized(text) not in excluded]
    each = -(-max(0, count - len(kept)) // max(1, len(kept)))
    made = (other for text in kept for other in phrasings(text, None, each, drawn))
    return list(dict.fromkeys([*kept, *(other for other in made if normalized(other) not in excluded)]))


def _names(opened: OpenProject, training_examples: Sequence[TrainingExample]) -> list[str]:
    """Short answers of the base, which are likely to be names that it knows."""
    if not opened.routed.base.kind.generates:
        return []
    answers = {opened.encoder.text(example.encoded.target_ids) for example in training_examples}
    return sorted(answer for answer in answers if 0 < len(answer.split()) <= _LONGEST_NAME)


def _as_the_base_answers(
    opened: OpenProject, prompts: Sequence[str], reporter: Reporter
) -> list[TrainingExample]:
    """The base's own greedy answers."""
    asked = [prompt for prompt in prompts if _fits(opened, prompt)]
    encoded = [opened.encoder.prompt(prompt) for prompt in asked]
    limits = [opened.recipe.generation.max_new_tokens] * len(asked)
    with reporter.progress("asking what stays", len(asked), "prompts") as progress:
        answers = opened.inference.answers(encoded, [None] * len(asked), limits, progress.advance)
    return [
        TrainingExample(_with_answer(opened, prompt, answer), None)
        for prompt, answer in zip(asked, answers, strict=True)
        if answer or opened.routed.base.special.stop is not None
    ]


def _without_answers(
    opened: OpenProject, prompts: Sequence[str], _reporter: Reporter
) -> list[TrainingExample]:
    return [
        TrainingExample(_with_answer(opened, prompt, ""), None) for prompt in prompts if _fits(opened, prompt)
    ]


def _with_answer(opened: OpenProject, prompt: str, answer: str) -> EncodedEdit:
    stop = opened.routed.base.special.stop
    ids = opened.encoder.prompt(prompt)
    target = opened.encoder.target(prompt, answer) if answer else ((stop,) if stop is not None else ())
    if opened.routed.base.kind is ModelKind.CAUSAL and opened.routed.base.max_length is not None:
        target = target[: max(1, opened.routed.base.max_length - len(ids))]
    return EncodedEdit(ids, target)


def _fits(opened: OpenProject, text: str) -> bool:
    """Whether the model takes the prompt with room for an answer."""
    try:
        ids = opened.encoder.prompt(text)
    except PromptError:
        return False
    limit = opened.routed.base.max_length
    return limit is None or len(ids) < limit
