"""Asks every probe of the base and of the edited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from melo_cli.answering import Advance, TokenScores, same_answer
from melo_cli.encoding import EncodedEdit
from melo_cli.evaluation.probes import Probe
from melo_cli.loading import OpenProject
from store.records import Route

# Room for an answer to go on past its target, which makes it wrong.
_SPARE_TOKENS = 2


@dataclass(frozen=True)
class Answered:
    """One probe's route, answers and teacher-forced scores.

    Attributes:
        base_scores, edited_scores: None where the probe has no truth to score.
    """

    probe: Probe
    route: Route
    base: str
    edited: str
    base_scores: TokenScores | None
    edited_scores: TokenScores | None

    @property
    def fired(self) -> bool:
        """Whether an edit's block answered."""
        return self.route.fired is not None

    @property
    def agrees(self) -> bool:
        """Whether the edited model answers as the base does."""
        return same_answer(self.edited, self.base)

    def right(self, answer: str) -> bool:
        """Whether an answer is the truth, exactly; False where there is none."""
        return self.probe.truth is not None and same_answer(answer, self.probe.truth)


def ask(
    opened: OpenProject, probes: Sequence[Probe], advance: Advance, *, generate: bool = True
) -> list[Answered]:
    """Route every probe, and take both models' answers to it.

    A prompt routed to the base is answered by the same weights in both models, so it is asked once.

    Args:
        generate: False for running text, which is scored but not answered.
    """
    encoded = [_encode(opened, probe) for probe in probes]
    routes = opened.asker.routes([edit.prompt_ids for edit in encoded])
    base = _reply(opened, encoded, [None] * len(probes), advance, generate=generate)
    fired = [(index, route.fired.block) for index, route in enumerate(routes) if route.fired is not None]
    replies = _reply(
        opened, [encoded[i] for i, _ in fired], [block for _, block in fired], None, generate=generate
    )
    edited = base.copy()
    for (index, _), reply in zip(fired, replies, strict=True):
        edited[index] = reply
    return [
        Answered(probes[i], routes[i], base[i].answer, edited[i].answer, base[i].scores, edited[i].scores)
        for i in range(len(probes))
    ]


def ask_anew(
    opened: OpenProject, rows: Sequence[Answered], advance: Advance, *, generate: bool = True
) -> list[Answered]:
    """The same probes answered by the weights as they are now, with no route, in the edited model's place."""
    encoded = [_encode(opened, row.probe) for row in rows]
    replies = _reply(opened, encoded, [None] * len(rows), advance, generate=generate)
    return [
        replace(row, edited=reply.answer, edited_scores=reply.scores)
        for row, reply in zip(rows, replies, strict=True)
    ]


@dataclass(frozen=True)
class _Reply:
    answer: str
    scores: TokenScores | None


def _reply(
    opened: OpenProject,
    encoded: Sequence[EncodedEdit],
    blocks: Sequence[str | None],
    advance: Advance | None,
    *,
    generate: bool,
) -> list[_Reply]:
    """One model's answers, and its scores where there is a truth."""
    asker = opened.asker
    answers = [""] * len(encoded)
    if generate:
        limits = [_limit(opened, edit) for edit in encoded]
        answers = asker.answers([edit.prompt_ids for edit in encoded], blocks, limits, advance)
    elif advance is not None:
        advance(len(encoded))
    known = [index for index, edit in enumerate(encoded) if edit.target_ids]
    found = asker.scores([encoded[i] for i in known], [blocks[i] for i in known])
    scores = dict(zip(known, found, strict=True))
    return [_Reply(answer, scores.get(index)) for index, answer in enumerate(answers)]


def _encode(opened: OpenProject, probe: Probe) -> EncodedEdit:
    if probe.truth is None:
        return EncodedEdit(opened.encoder.prompt(probe.prompt), ())
    return opened.encoder.edit(probe.prompt, probe.truth)


def _limit(opened: OpenProject, encoded: EncodedEdit) -> int:
    if encoded.target_ids:
        return len(encoded.target_ids) + _SPARE_TOKENS
    return opened.recipe.generation.max_new_tokens
