"""What a dense model learns from the routed one: prompts, who answers each, and what is answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from melo_cli.base_model import ModelKind
from melo_cli.encoding import EncodedEdit
from melo_cli.errors import PromptError
from melo_cli.evaluation import collect_probes
from melo_cli.exporting.merging.phrasings import about_others, phrasings
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from store.records import EditView

# So many last words of a text stand in for a subject.
_PRETENDED = 2
# Fewer unrelated texts than this are filled up with other phrasings of them: a covariance wants many tokens.
_ENOUGH = 400


@dataclass(frozen=True)
class Lesson:
    """One prompt with its answer as the routed model gives it.

    Attributes:
        block: who answers; None for the base.
        is_prompt: it is an edit's own prompt, not a phrasing of one.
    """

    encoded: EncodedEdit
    block: str | None
    is_prompt: bool = False


@dataclass(frozen=True)
class Lessons:
    """All that is taught.

    Attributes:
        edits: the edits' own prompts, and phrasings of them that go to the same block.
        others: prompts about other subjects, and unrelated text: what is to stay as it is.
        taught: unrelated prompts of the project among them, which measure nothing any more.
    """

    edits: list[Lesson]
    others: list[Lesson]
    taught: frozenset[str]


def make_lessons(
    opened: OpenProject, reporter: Reporter, *, unrelated: Sequence[str], phrasings_each: int, seed: int
) -> Lessons:
    """Ask the routed model everything that is to be taught.

    Args:
        unrelated: text that is to stay as it is; every second unrelated prompt of the project if none is
            given, and then measured on the others.
    """
    live = [edit for edit in opened.project.edits() if edit.status == "live"]
    taught: frozenset[str] = frozenset()
    if not unrelated:
        own = [probe.prompt for probe in collect_probes(opened, reporter).unrelated]
        unrelated = own[::2]
        taught = frozenset(unrelated)
    edits = [
        Lesson(opened.encoder.edit(edit.prompt, edit.target), edit.block, is_prompt=True) for edit in live
    ]
    edits += _phrased(opened, live, phrasings_each, seed)
    unrelated = _enough(unrelated, phrasings_each, seed)
    swapped = _about_others(live, unrelated, phrasings_each, seed)
    return Lessons(edits, _as_answered(opened, [*swapped, *unrelated], reporter), taught)


def _phrased(opened: OpenProject, live: Sequence[EditView], each: int, seed: int) -> list[Lesson]:
    """Phrasings that the router sends where the prompt goes: the others are no part of an edit's scope."""
    made = [
        (edit, text)
        for edit in live
        for text in phrasings(edit.prompt, edit.record.subject, each, seed)
        if _fits(opened, text)
    ]
    routes = opened.asker.routes([opened.encoder.prompt(text) for _, text in made])
    return [
        Lesson(opened.encoder.edit(text, edit.target), edit.block)
        for (edit, text), route in zip(made, routes, strict=True)
        if route.fired is not None and route.fired.block == edit.block
    ]


def _enough(texts: Sequence[str], each: int, seed: int) -> list[str]:
    missing = max(0, _ENOUGH - len(texts))
    filled = (other for text in texts for other in phrasings(text, None, each, seed))
    return [*texts, *itertools.islice(filled, missing)]


def _about_others(live: Sequence[EditView], unrelated: Sequence[str], count: int, seed: int) -> list[str]:
    """The edits' prompts about other subjects: those of other edits, and words of unrelated text."""
    prompts = {edit.prompt for edit in live}
    subjects = {edit.record.subject for edit in live if edit.record.subject}
    pretended = {" ".join(text.rstrip("?.! ").split()[-_PRETENDED:]) for text in unrelated}
    others = sorted(subjects) + sorted(pretended - subjects)
    made = (
        text for edit in live for text in about_others(edit.prompt, edit.record.subject, others, count, seed)
    )
    return [text for text in dict.fromkeys(made) if text not in prompts]


def _as_answered(opened: OpenProject, prompts: Sequence[str], reporter: Reporter) -> list[Lesson]:
    """The routed model's own greedy answers."""
    asker = opened.asker
    asked = [prompt for prompt in dict.fromkeys(prompts) if _fits(opened, prompt)]
    encoded = [opened.encoder.prompt(prompt) for prompt in asked]
    blocks = [route.fired.block if route.fired else None for route in asker.routes(encoded)]
    limits = [opened.recipe.generation.max_new_tokens] * len(asked)
    with reporter.progress("asking what stays", len(asked), "prompts") as progress:
        answers = asker.answers(encoded, blocks, limits, progress.advance)
    return [
        Lesson(_with_answer(opened, prompt, answer), block)
        for prompt, answer, block in zip(asked, answers, blocks, strict=True)
        if answer or opened.encoder.stop_id is not None
    ]


def _with_answer(opened: OpenProject, prompt: str, answer: str) -> EncodedEdit:
    stop = opened.encoder.stop_id
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
