"""Makes one batch of edits: answer, train, answer again, store."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.calibration import SeenPrompts
from melo_cli.datasets import EditRequest
from melo_cli.editing.plan import settings_digest
from melo_cli.editing.solving import OnStep, Solution, Solved, ToSolve, answer_lengths, solve
from melo_cli.errors import PromptError
from melo_cli.models.encoding import EncodedEdit
from melo_cli.paraphrase.paraphraser import Paraphraser
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.paraphrase.subject_swaps import normalized
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.model import Record
from melo_store.records import NewEdit
from melo_store.writer import Writer


@dataclass(frozen=True)
class EditOutcome:
    """The result of one edit: its row in the store, and the answers before and after."""

    edit_id: str
    status: str
    prompt: str
    target: str
    answer: str
    before: str


@dataclass(frozen=True)
class _Present:
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


class Editor:
    """Edits one project through its single writer.

    Args:
        opened: the project with its base model.
        writer: the project's lock, held.
        frames: ways to put prompts that the data give, for training.
        paraphraser: other ways to put them.
    """

    def __init__(
        self,
        opened: OpenProject,
        writer: Writer,
        frames: QuestionFrames,
        paraphraser: Paraphraser,
        *,
        versions: Mapping[str, str],
        command: str,
    ) -> None:
        self._open = opened
        self._writer = writer
        self._frames = frames
        self._paraphraser = paraphraser
        self._seen = SeenPrompts(opened.project.key_map)
        self._versions = versions
        self._command = command

    def edit(self, requests: Sequence[EditRequest], on_step: OnStep | None = None) -> list[EditOutcome]:
        """Make one group of edits and commit it.

        Edits that the model answers right already are recorded as such and not trained; where the base does,
        they become neurons that lead to it, so that no other edit takes their prompts. The others are trained
        in blocks of `training.batch_size` edits; only those really answered as asked become neurons.

        Args:
            requests: the edits; no prompt comes twice.
            on_step: called with the loss of each training step, nats a token.

        Returns:
            One outcome for each request, in order.

        Raises:
            MeloError: the model cannot take one of them; nothing has been changed then.
        """
        encoded = [self._open.encoder.edit(each.prompt, each.target, each.aliases) for each in requests]
        present = self._present_answers(requests, encoded)
        router = self._open.routed.router
        records = router.records(
            [request.prompt for request in requests], [request.subject for request in requests]
        )
        wrong = [i for i, request in enumerate(requests) if not present[i].holds(request)]
        to_solve = [self._to_solve(requests[i], encoded[i], records[i]) for i in wrong]
        solved = solve(self._open, to_solve, on_step)
        solutions = dict(zip(wrong, solved.solutions, strict=True))
        rows = [
            self._row(request, encoded[i], records[i], present[i], solutions.get(i))
            for i, request in enumerate(requests)
        ]
        return self._commit(rows, solved, present)

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

    def _present_answers(
        self, requests: Sequence[EditRequest], encoded: Sequence[EncodedEdit]
    ) -> list[_Present]:
        inference = self._open.inference
        routes = inference.routes([request.prompt for request in requests])
        blocks = [route.fired.block if route.fired is not None else None for route in routes]
        lengths = answer_lengths(encoded)
        if len(requests) == 1:  # one is shown as the user would see it
            lengths = [max(lengths[0], self._open.recipe.generation.max_new_tokens)]
        answers = inference.answers([edit.prompt_ids for edit in encoded], blocks, lengths)
        project = self._writer.project
        fired = [project.edit(route.fired.edit_id).prompt if route.fired else None for route in routes]
        return [_Present(answer, prompt) for answer, prompt in zip(answers, fired, strict=True)]

    def _row(
        self,
        request: EditRequest,
        encoded: EncodedEdit,
        record: Record,
        present: _Present,
        solution: Solution | None,
    ) -> NewEdit:
        block = solution.block if solution is not None else None
        routes = block is not None if solution is not None else present.prompt is None
        metrics: dict[str, Any] = {"answer": present.answer}
        if solution is not None:
            metrics = {
                "answer": solution.answer,
                "attempts": solution.attempts,
                "steps": solution.steps,
                "loss": solution.loss,
            }
        if solution is not None and block is None:
            metrics["settings"] = settings_digest(self._open.recipe)
        return NewEdit(
            prompt=request.prompt,
            target=request.target,
            rephrases=request.rephrases,
            locality=request.locality,
            subject=request.subject,
            metadata=request.kept_metadata,
            status="already_right" if solution is None else "solved" if block is not None else "failed",
            label=encoded.target_ids,
            key=record.key if routes else None,
            tokens=record.tokens if routes and len(record.tokens) else None,
            block=block,
            radius=self._open.radius if routes else None,
            metrics=metrics,
        )

    def _commit(
        self, rows: Sequence[NewEdit], solved: Solved, present: Sequence[_Present]
    ) -> list[EditOutcome]:
        staged = self._writer.stage(rows, solved.blocks)
        staged.commit(
            action="edit",
            recipe=self._open.recipe.to_mapping(),
            seed=self._open.recipe.seed,
            versions=self._versions,
            command=self._command,
        )
        self._open.routed.follow(self._writer.project)
        return [
            EditOutcome(
                edit_id,
                "superseded" if edit_id in staged.superseded else row.status,
                row.prompt,
                row.target,
                str(row.metrics["answer"]),
                before.answer,
            )
            for edit_id, row, before in zip(staged.edit_ids, rows, present, strict=True)
        ]
