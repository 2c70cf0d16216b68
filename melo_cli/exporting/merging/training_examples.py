"""What a dense model learns from the routed one: prompts, who answers each, and what is answered."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from melo_cli.calibration import SeenPrompts, calibration_rows, learnable
from melo_cli.datasets import EditRequest
from melo_cli.errors import PromptError
from melo_cli.evaluation import collect_probes
from melo_cli.evaluation.probes import ProbeSet
from melo_cli.exporting.merging.phrasings import Lookalikes, phrasings
from melo_cli.models.base_model import ModelKind
from melo_cli.models.encoding import EncodedEdit
from melo_cli.paraphrase.question_frames import Wordings
from melo_cli.paraphrase.subject_swaps import normalized
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject
from melo_store.records import EditView

# Of prompts that read like edits, so many an edit, within so many times what is asked for.
_NEAR_EACH, _MOST_NEAR = 20, 4
# Times as many where the base is not asked about them.
_MORE_UNANSWERED = 3
_LONGEST_NAME = 4
# Examples of one pass.
_ROWS = 32


@dataclass(frozen=True)
class TrainingExample:
    """One prompt with its answer.

    Attributes:
        block: who answers; None for the base.
        made_up: of a wording, that nobody is known to have used it.
    """

    encoded: EncodedEdit
    block: str | None
    made_up: bool = False


@dataclass(frozen=True)
class TrainingExamples:
    """All that is taught.

    Attributes:
        prompts: the edits' own, with their targets.
        phrased: the same in other words.
        near: prompts that read like edits, as the base answers them.
        far: unrelated text, as the base answers it.
        taught: unrelated prompts of the project among them that an evaluation would ask; they measure
            nothing any more.
    """

    prompts: list[TrainingExample]
    phrased: list[TrainingExample]
    near: list[TrainingExample]
    far: list[TrainingExample]
    taught: frozenset[str]

    @property
    def edits(self) -> list[TrainingExample]:
        """What edits answer."""
        return [*self.prompts, *self.phrased]

    @property
    def others(self) -> list[TrainingExample]:
        """What is to stay as it is."""
        return [*self.near, *self.far]


NO_EXAMPLES = TrainingExamples([], [], [], [], frozenset())


@dataclass(frozen=True)
class ExampleSettings:
    """What examples are made of.

    Attributes:
        unrelated: text that is to stay as it is. Without it come the unrelated prompts that calibration has
            seen; without those, every second one of the project, and the others alone measure then.
        phrasings: how many made-up ways to put each edit's prompt are taught, beside those that are known.
        unchanged: how many prompts that read like edits, and how much unrelated text, at least is to stay.
        seed: of what is made up, and of what a method draws.
    """

    unrelated: tuple[str, ...] = ()
    phrasings: int = 12
    unchanged: int = 1000
    seed: int = 0


def batches(group: Sequence[TrainingExample]) -> Iterator[list[TrainingExample]]:
    """Examples of like length together, so that little is padding."""
    ordered = sorted(
        group, key=lambda example: len(example.encoded.prompt_ids) + len(example.encoded.target_ids)
    )
    return (ordered[start : start + _ROWS] for start in range(0, len(ordered), _ROWS))


def make_training_examples(
    opened: OpenProject, settings: ExampleSettings, reporter: Reporter, *, answered: bool = True
) -> TrainingExamples:
    """Make prompts and ask them of base and router.

    What calibration has seen may be learned from: rephrases, whose wordings carry over to other subjects, and
    unrelated prompts. What `melo eval` measures is kept out, except where nothing else is there to stay.

    Args:
        answered: ask the base about those; without, they have no answer, and more of them are made.
    """
    drawn = random.Random(settings.seed)
    live = [edit for edit in opened.project.edits() if edit.status == "live"]
    known = learnable(opened.project, calibration_rows(opened.recipe, reporter))
    wordings = Wordings(known)
    probes = collect_probes(opened, reporter, seen=SeenPrompts(opened.project.key_map))
    texts, taught = _unrelated(opened, known, settings.unrelated, probes)
    texts += [edit.prompt for edit in opened.project.edits() if edit.status == "already_right"]
    measured = _measured(probes, taught)
    known_phrasings = [
        (edit, text) for edit in live for text in wordings.of(edit.prompt, edit.record.subject)
    ]
    phrased = _phrased(opened, live, known_phrasings, settings.phrasings, measured, drawn)
    apart_from = {
        normalized(text) for text in (*(edit.prompt for edit in live), *(text for _, text in known_phrasings))
    } | measured
    answer = _as_the_base_answers if answered else _without_answers
    far = answer(opened, _filled(texts, settings.unchanged, apart_from, drawn), reporter)
    names = [each.subject for each in known if each.subject] + _names(opened, far)
    lookalikes = Lookalikes([edit.record for edit in live], names, texts, wordings, drawn)
    wanted = min(max(settings.unchanged, _NEAR_EACH * len(live)), _MOST_NEAR * settings.unchanged)
    each = -(-wanted // len(live))
    each *= 1 if answered else _MORE_UNANSWERED
    alike = [text for edit in live for text in lookalikes.of(edit.record, each, apart_from)]
    near = answer(opened, alike, reporter)
    prompts = [TrainingExample(opened.encoder.edit(edit.prompt, edit.target), edit.block) for edit in live]
    return TrainingExamples(prompts, phrased, near, far, taught)


def _unrelated(
    opened: OpenProject, known: Sequence[EditRequest], given: Sequence[str], probes: ProbeSet
) -> tuple[list[str], frozenset[str]]:
    """Text that is to stay, and what of it an evaluation would have asked."""
    asked = [probe.prompt for probe in probes.unrelated]
    seen = [probe.prompt for probe in probes.seen_unrelated]
    if given:
        return list(given), frozenset(given) & frozenset(asked + seen)
    apart = {normalized(edit.prompt) for edit in opened.project.edits()}
    facts = [
        text
        for each in known
        if normalized(each.prompt) not in apart
        for text in (each.prompt, *each.rephrases)
    ]
    if seen or facts:
        return seen + facts, frozenset()
    return asked[::2], frozenset(asked[::2])


def _measured(probes: ProbeSet, taught: Collection[str]) -> set[str]:
    """What an evaluation asks beside the edits, as plain texts."""
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
    """The edits as `known_phrasings` in known wordings, and in made-up ones that the router sends to their
    blocks."""
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


def _filled(texts: Sequence[str], count: int, apart_from: Collection[str], drawn: random.Random) -> list[str]:
    """Enough text to leave as it is: other wordings of it, where there is little."""
    kept = [text for text in dict.fromkeys(texts) if normalized(text) not in apart_from]
    each = -(-max(0, count - len(kept)) // max(1, len(kept)))
    made = (other for text in kept for other in phrasings(text, None, each, drawn))
    return list(dict.fromkeys([*kept, *(other for other in made if normalized(other) not in apart_from)]))


def _names(opened: OpenProject, training_examples: Sequence[TrainingExample]) -> list[str]:
    """Short answers of the base: names of which it knows something."""
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
