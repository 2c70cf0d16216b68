"""Asks every probe of the base and of the edited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from melo_cli.evaluation.probes import Probe
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.inference import Advance, TokenScores, same_answer
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import NO_ROUTE, Route

# Room for an answer to go on past its target, which makes it wrong.
_SPARE_TOKENS = 2
_MOST_AGAIN = 100


@dataclass(frozen=True)
class ProbeAnswers:
    """One probe's route, answers and teacher-forced scores.

    Attributes:
        route: None where the edited model has no router, as a fine-tuned or merged one.
        base_scores, edited_scores: None where the probe has no truth to score.
        nearest_target: what the nearest neuron's edit wants answered; None without a neuron or a router.
        fired_target: the same of the neuron that fired.
    """

    probe: Probe
    route: Route | None
    base: str
    edited: str
    base_scores: TokenScores | None
    edited_scores: TokenScores | None
    nearest_target: str | None = None
    fired_target: str | None = None

    @property
    def fired(self) -> bool:
        """Whether an edit's block answered."""
        return self.route is not None and self.route.fired is not None

    @property
    def told(self) -> bool:
        """Whether the base model answered with the facts of edits beside the prompt."""
        return self.route is not None and bool(self.route.told)

    @property
    def agrees(self) -> bool:
        """Whether the edited model answers as the base does."""
        return same_answer(self.edited, self.base)

    @property
    def nearest_right(self) -> bool:
        """Whether the nearest neuron's edit wants the probe's truth answered."""
        return self.nearest_target is not None and self.right(self.nearest_target)

    def right(self, answer: str) -> bool:
        """Whether an answer is the truth or an alias of it, exactly; False where there is none."""
        truth, aliases = self.probe.truth, self.probe.aliases
        return truth is not None and same_answer(answer, truth, aliases)


def ask(
    opened: OpenProject, probes: Sequence[Probe], advance: Advance, *, generate: bool = True
) -> list[ProbeAnswers]:
    """Route every probe, and take both models' answers to it.

    Args:
        opened: the project, opened.
        probes: the prompts, with their truth where there is one.
        advance: called with the number of probes that were asked since the last call.
        generate: False for running text, which is scored but not answered.

    Returns:
        One row for each probe, in order.
    """
    encoded = [_encode(opened, probe) for probe in probes]
    base = _reply(opened, encoded, [None] * len(probes), advance, generate=generate)
    rows = [
        ProbeAnswers(probe, None, reply.answer, reply.answer, reply.scores, reply.scores)
        for probe, reply in zip(probes, base, strict=True)
    ]
    return ask_routed(opened, rows, None, generate=generate)


def ask_routed(
    opened: OpenProject, rows: Sequence[ProbeAnswers], advance: Advance | None, *, generate: bool = True
) -> list[ProbeAnswers]:
    """The same probes with the routes and answers of `opened.inference` as those of the edited model.

    An open request about an edit's subject is asked with its facts. Any other prompt that is routed to the
    base is answered by the same weights in both models, so it is not asked again, and agrees by construction;
    `unfired_again` asks some of them.

    Args:
        opened: the project, or another editor that routes.
        rows: the probes with the answers of the base.
        advance: called once, with the number of rows.
        generate: False for running text, which is scored but not answered.

    Returns:
        One row for each probe, in order.
    """
    routes = opened.routes([row.probe.prompt for row in rows])
    targets = {edit.edit_id: edit.target for edit in opened.project.edits()}
    again = [index for index, route in enumerate(routes) if route.fired is not None or route.told]
    replies = _reply(
        opened,
        [_encode(opened, rows[index].probe, routes[index]) for index in again],
        [_block(routes[index]) for index in again],
        None,
        generate=generate,
    )
    answers = dict(zip(again, replies, strict=True))
    if advance is not None:
        advance(len(rows))
    return [
        replace(
            row,
            route=route,
            edited=answers[index].answer if index in answers else row.base,
            edited_scores=answers[index].scores if index in answers else row.base_scores,
            nearest_target=targets[route.nearest.edit_id] if route.nearest is not None else None,
            fired_target=targets[route.fired.edit_id] if route.fired is not None else None,
        )
        for index, (row, route) in enumerate(zip(rows, routes, strict=True))
    ]


def ask_anew(
    opened: OpenProject, rows: Sequence[ProbeAnswers], advance: Advance, *, generate: bool = True
) -> list[ProbeAnswers]:
    """The same probes with answers of the present weights, without routes, as those of the edited model.

    Args:
        opened: the project, whose base model has other weights now.
        rows: the probes with the answers of the base.
        advance: called with the number of rows that were asked since the last call.
        generate: False for running text, which is scored but not answered.

    Returns:
        One row for each probe, in order, without a route.
    """
    encoded = [_encode(opened, row.probe) for row in rows]
    replies = _reply(opened, encoded, [None] * len(rows), advance, generate=generate)
    return [
        replace(
            row,
            route=None,
            edited=reply.answer,
            edited_scores=reply.scores,
            nearest_target=None,
            fired_target=None,
        )
        for row, reply in zip(rows, replies, strict=True)
    ]


def unfired_again(opened: OpenProject, rows: Sequence[ProbeAnswers]) -> tuple[int, int]:
    """Route and ask again, among prompts that an edit answers, some prompts that edits leave to the base.

    They stand in the same batches, so that a block which reached another row than its own would show.

    Returns:
        How many of the prompts that no edit answered, or was told to, were asked, at most 100, and how many
        were answered as by the base.
    """
    fired = _sample([row for row in rows if row.fired], _MOST_AGAIN)
    unfired = _sample([row for row in rows if not row.fired and not row.told], _MOST_AGAIN)
    mixed = [*fired, *unfired]
    blocks = [_block(route) for route in opened.inference.routes([row.probe.prompt for row in mixed])]
    encoded = [_encode(opened, row.probe) for row in mixed]
    answers = opened.inference.answers(
        [edit.prompt_ids for edit in encoded], blocks, [_limit(opened, edit) for edit in encoded]
    )
    pairs = zip(unfired, answers[len(fired) :], strict=True)
    return len(unfired), sum(same_answer(answer, row.base) for row, answer in pairs)


def _sample(rows: Sequence[ProbeAnswers], most: int) -> list[ProbeAnswers]:
    """An even sample of at most `most` rows."""
    count = min(most, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


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
    inference = opened.inference
    known = [index for index, edit in enumerate(encoded) if edit.target_ids]
    results = inference.scores([encoded[i] for i in known], [blocks[i] for i in known])
    scores = dict(zip(known, results, strict=True))
    answers = [""] * len(encoded)
    if not opened.routed.base.kind.generates:
        # A classifier's answer is its first choice, which the scores hold already.
        answers = [opened.encoder.text(scores[i].choices) if i in scores else "" for i in range(len(encoded))]
    unanswered = [i for i, answer in enumerate(answers) if not answer] if generate else []
    written = inference.answers(
        [encoded[i].prompt_ids for i in unanswered],
        [blocks[i] for i in unanswered],
        [_limit(opened, encoded[i]) for i in unanswered],
        advance,
    )
    for index, answer in zip(unanswered, written, strict=True):
        answers[index] = answer
    if advance is not None:
        advance(len(encoded) - len(unanswered))
    return [_Reply(answer, scores.get(index)) for index, answer in enumerate(answers)]


def _encode(opened: OpenProject, probe: Probe, route: Route = NO_ROUTE) -> EncodedEdit:
    prompt = opened.told.asked(probe.prompt, route)
    if probe.truth is None:
        return EncodedEdit(opened.encoder.prompt(prompt), ())
    return opened.encoder.edit(prompt, probe.truth, probe.aliases)


def _block(route: Route) -> str | None:
    return route.fired.block if route.fired is not None else None


def _limit(opened: OpenProject, encoded: EncodedEdit) -> int:
    if encoded.target_ids:
        return encoded.answer_length + _SPARE_TOKENS
    return opened.recipe.generation.max_new_tokens
