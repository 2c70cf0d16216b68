"""The work of one group of edits, without writing: answer, train, answer again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from melo_cli.calibration import SeenPrompts
from melo_cli.datasets import EditRequest
from melo_cli.editing.solving import OnStep, Solved, ToSolve, answer_lengths, solve
from melo_cli.errors import PromptError
from melo_cli.models.encoding import EncodedEdit
from melo_cli.paraphrase.paraphraser import Paraphraser, kinds_of
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.paraphrase.subject_swaps import normalized
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.model import Record
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import Query
from melo_cli.scope.corpus import load_corpus
from melo_store.project import Project


@dataclass(frozen=True)
class FiredEdit:
    """The edit that answers a prompt before the prompt is edited."""

    edit_id: str
    block: str | None
    prompt: str


@dataclass(frozen=True)
class PresentAnswer:
    """What the model answers before the edit.

    Attributes:
        prompt: the prompt of the edit whose block answers; None for the base.
    """

    answer: str
    prompt: str | None

    def holds(self, request: EditRequest) -> bool:
        """Whether the edit need not be made.

        An answer that the block of another prompt gives may go when that edit does, or when a newer one is
        nearer.
        """
        return self.prompt in (None, request.prompt) and same_answer(
            self.answer, request.target, request.aliases
        )


@dataclass(frozen=True)
class TrainedGroup:
    """The result of one group of edits, ready to be committed; it can be sent from process to process.

    Of all its parts only `fired`, and what follows from it, depend on the edits that the project has.

    Attributes:
        labels: the target's token ids, of each edit.
        records: the record of each edit's prompt, for the store.
        queries: each prompt as the router looks it up.
        fired: the edit that answered each prompt; None for the base.
        present: what each prompt was answered.
        wrong: numbers of the edits that were not answered as asked, ascending.
        solved: the solutions of those, in order, and their blocks.
    """

    labels: Sequence[tuple[int, ...]]
    records: Sequence[Record]
    queries: Sequence[Query]
    fired: Sequence[FiredEdit | None]
    present: Sequence[PresentAnswer]
    wrong: Sequence[int]
    solved: Solved


def fired_edits(router: Router, queries: Sequence[Query], project: Project) -> list[FiredEdit | None]:
    """The edit of `project` that answers each query; None where the base does."""
    routes = router.routes_of(queries, project)
    return [
        FiredEdit(near.edit_id, near.block, project.edit(near.edit_id).prompt) if near is not None else None
        for near in (route.fired for route in routes)
    ]


def paraphraser_of(opened: OpenProject) -> Paraphraser:
    """Puts questions as the corpus and the project's key map let it."""
    key_map = opened.project.key_map
    return Paraphraser(load_corpus(), kinds_of(key_map.settings, key_map.arrays) if key_map else {})


class GroupTrainer:
    """Trains groups of edits over one snapshot of a project, and writes nothing.

    A group's result is a pure function of base model, recipe, requests, and the edits that answer their
    prompts in that snapshot.

    Args:
        opened: the project with its base model.
        frames: ways to put prompts that the data give, for training.
        paraphraser: other ways to put them.

    Attributes:
        project: the snapshot.
    """

    def __init__(self, opened: OpenProject, frames: QuestionFrames, paraphraser: Paraphraser) -> None:
        self.project = opened.project
        self._open = opened
        self._frames = frames
        self._paraphraser = paraphraser
        self._seen = SeenPrompts(opened.project.key_map)

    def follow(self, project: Project) -> None:
        """Use another snapshot of the project."""
        self.project = project
        self._open.routed.follow(project)

    def train(self, requests: Sequence[EditRequest], on_step: OnStep | None = None) -> TrainedGroup:
        """Train one group of edits.

        Edits that the model answers right already are not trained. The others are trained in blocks of
        `training.batch_size` edits, and asked again.

        Args:
            requests: the edits; no prompt comes twice.
            on_step: called with the loss of each training step, nats a token.

        Raises:
            MeloError: the model cannot take one of them.
        """
        encoded = self._encoded(requests)
        router = self._open.routed.router
        queries = router.queries([request.prompt for request in requests])
        fired = fired_edits(router, queries, self.project)
        present = self._present_answers(encoded, fired)
        records = router.records(
            [request.prompt for request in requests], [request.subject for request in requests]
        )
        wrong = _wrong(requests, present)
        return TrainedGroup(
            labels=[each.target_ids for each in encoded],
            records=records,
            queries=queries,
            fired=fired,
            present=present,
            wrong=wrong,
            solved=self._solve(requests, encoded, records, wrong, on_step),
        )

    def train_again(
        self,
        requests: Sequence[EditRequest],
        group: TrainedGroup,
        fired: Sequence[FiredEdit | None],
        on_step: OnStep | None = None,
    ) -> TrainedGroup:
        """The same group where other edits answer its prompts than those that it was trained with.

        Its blocks stay as they are where the same edits are wrong with these as with those.

        Args:
            requests: the edits.
            group: their result with `group.fired`.
            fired: the edit that answers each prompt, of this snapshot; None for the base.
            on_step: as in `train`.
        """
        encoded = self._encoded(requests)
        present = self._present_answers(encoded, fired)
        wrong = _wrong(requests, present)
        solved = group.solved
        if wrong != group.wrong:
            solved = self._solve(requests, encoded, group.records, wrong, on_step)
        return replace(group, fired=fired, present=present, wrong=wrong, solved=solved)

    def _encoded(self, requests: Sequence[EditRequest]) -> list[EncodedEdit]:
        return [self._open.encoder.edit(each.prompt, each.target, each.aliases) for each in requests]

    def _present_answers(
        self, encoded: Sequence[EncodedEdit], fired: Sequence[FiredEdit | None]
    ) -> list[PresentAnswer]:
        lengths = answer_lengths(encoded)
        if len(encoded) == 1:  # one is shown as the user would see it
            lengths = [max(lengths[0], self._open.recipe.generation.max_new_tokens)]
        blocks = [each.block if each is not None else None for each in fired]
        answers = self._open.inference.answers([edit.prompt_ids for edit in encoded], blocks, lengths)
        return [
            PresentAnswer(answer, each.prompt if each is not None else None)
            for answer, each in zip(answers, fired, strict=True)
        ]

    def _solve(
        self,
        requests: Sequence[EditRequest],
        encoded: Sequence[EncodedEdit],
        records: Sequence[Record],
        wrong: Sequence[int],
        on_step: OnStep | None,
    ) -> Solved:
        to_solve = [self._to_solve(requests[i], encoded[i], records[i]) for i in wrong]
        return solve(self._open, to_solve, on_step)

    def _to_solve(self, request: EditRequest, encoded: EncodedEdit, record: Record) -> ToSolve:
        """The edit with variants of its prompt."""
        variants = [self._variant(text, request) for text in self._phrased(request, record)]
        fitting = [variant for variant in variants if variant is not None]
        return ToSolve(encoded, request.target, fitting, request.aliases)

    def _phrased(self, request: EditRequest, record: Record) -> list[str]:
        """The prompt in other words, known ones first; the seed and the prompt decide which.

        A rephrase that evaluation will ask of this edit is left out, even if it is known of another subject.
        """
        recipe = self._open.recipe
        count = recipe.training.variants
        drawn = random.Random(f"{recipe.seed}:{request.prompt}")
        asked = {normalized(text) for text in request.rephrases if not self._seen(text)}
        known = [
            text for text in self._frames.of(request.prompt, request.subject) if normalized(text) not in asked
        ]
        known_texts = drawn.sample(sorted(known), min(count, len(known)))
        if len(known_texts) == count:
            return known_texts
        question = self._open.routed.router.recorder.question(record)
        made = self._paraphraser.paraphrases(
            request.prompt, request.subject, question, count - len(known_texts), drawn
        )
        return [*known_texts, *(text for text in made if normalized(text) not in asked)]

    def _variant(self, text: str, request: EditRequest) -> EncodedEdit | None:
        """None where the model does not take a text that has grown longer than the prompt."""
        try:
            return self._open.encoder.edit(text, request.target)
        except PromptError:
            return None


def _wrong(requests: Sequence[EditRequest], present: Sequence[PresentAnswer]) -> list[int]:
    return [i for i, request in enumerate(requests) if not present[i].holds(request)]
