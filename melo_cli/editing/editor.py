"""Makes one batch of edits: answer, train, answer again, store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.answering import same_answer
from melo_cli.datasets import EditRequest
from melo_cli.editing.training import TrainedBlock, train_block
from melo_cli.encoding import EncodedEdit
from melo_cli.loading import OpenProject
from store.records import NewEdit
from store.writer import Writer

# The block in hand, before the store has named it.
_NEW_BLOCK = "new"
# An answer that goes on past its target is wrong: leave it room to show that.
_SPARE_TOKENS = 2

OnStep = Callable[[float], None]


@dataclass(frozen=True)
class EditOutcome:
    """What became of one edit: its row in the store and the answer the model now gives."""

    edit_id: str
    status: str
    prompt: str
    target: str
    answer: str


class Editor:
    """Edits one project through its single writer.

    Args:
        opened: the project with its base model.
        writer: the project's lock, held.
    """

    def __init__(
        self, opened: OpenProject, writer: Writer, *, versions: Mapping[str, str], command: str
    ) -> None:
        self._open = opened
        self._writer = writer
        self._versions = versions
        self._command = command

    def edit(self, requests: Sequence[EditRequest], on_step: OnStep | None = None) -> list[EditOutcome]:
        """Make one batch of edits and commit it.

        Edits that the model answers right already are recorded as such and not trained. The others share
        one new block; each is then asked for real, and only those answered as asked become neurons.

        Raises:
            MeloError: the model cannot take one of them; nothing has been changed then.
        """
        encoded = [self._open.encoder.edit(request.prompt, request.target) for request in requests]
        answers = self._present_answers(encoded)
        wrong = [i for i, request in enumerate(requests) if not same_answer(answers[i], request.target)]
        trained = self._train([encoded[i] for i in wrong], on_step) if wrong else None
        if trained is not None:
            new_answers = self._answers_of(trained, [encoded[i] for i in wrong])
            answers = [*answers]
            for i, answer in zip(wrong, new_answers, strict=True):
                answers[i] = answer
        rows = [
            self._row(request, encoded[i], answers[i], trained if i in wrong else None)
            for i, request in enumerate(requests)
        ]
        return self._commit(rows, trained, answers)

    def _present_answers(self, encoded: Sequence[EncodedEdit]) -> list[str]:
        asker = self._open.asker
        routes = asker.routes([edit.prompt_ids for edit in encoded])
        blocks = [route.fired.block if route.fired is not None else None for route in routes]
        return asker.answers([edit.prompt_ids for edit in encoded], blocks, _lengths(encoded))

    def _train(self, encoded: Sequence[EncodedEdit], on_step: OnStep | None) -> TrainedBlock:
        recipe = self._open.recipe
        routed = self._open.routed
        return train_block(
            routed.base,
            routed.tuner,
            encoded,
            recipe.training,
            rank=recipe.lora.rank,
            scale=recipe.lora.scale,
            seed=recipe.seed,
            on_step=on_step,
        )

    def _answers_of(self, trained: TrainedBlock, encoded: Sequence[EncodedEdit]) -> list[str]:
        routed = self._open.routed
        routed.blocks.put(_NEW_BLOCK, trained.slices)
        prompts = [edit.prompt_ids for edit in encoded]
        try:
            return self._open.asker.answers(prompts, [_NEW_BLOCK] * len(encoded), _lengths(encoded))
        finally:
            routed.blocks.drop(_NEW_BLOCK)

    def _row(
        self, request: EditRequest, encoded: EncodedEdit, answer: str, trained: TrainedBlock | None
    ) -> NewEdit:
        solved = trained is not None and same_answer(answer, request.target)
        metrics: dict[str, Any] = {"answer": answer}
        if trained is not None:
            metrics |= {"steps": len(trained.losses), "loss": trained.losses[-1]}
        return NewEdit(
            prompt=request.prompt,
            target=request.target,
            rephrases=request.rephrases,
            locality=request.locality,
            subject=request.subject,
            metadata=request.metadata,
            status="already_right" if trained is None else "solved" if solved else "failed",
            label=encoded.target_ids,
            key=self._open.asker.keys([encoded.prompt_ids])[0] if solved else None,
            block=_NEW_BLOCK if solved else None,
            radius=self._open.radius if solved else None,
            metrics=metrics,
        )

    def _commit(
        self, rows: Sequence[NewEdit], trained: TrainedBlock | None, answers: Sequence[str]
    ) -> list[EditOutcome]:
        used = trained is not None and any(row.block == _NEW_BLOCK for row in rows)
        staged = self._writer.stage(
            rows, {_NEW_BLOCK: trained.slices} if trained is not None and used else {}
        )
        staged.commit(
            action="edit",
            recipe=self._open.recipe.to_mapping(),
            seed=self._open.recipe.seed,
            versions=self._versions,
            command=self._command,
        )
        self._open.routed.source = self._writer.project
        return [
            EditOutcome(
                edit_id,
                "superseded" if edit_id in staged.superseded else row.status,
                row.prompt,
                row.target,
                answer,
            )
            for edit_id, row, answer in zip(staged.edit_ids, rows, answers, strict=True)
        ]


def _lengths(encoded: Sequence[EncodedEdit]) -> list[int]:
    return [len(edit.target_ids) + _SPARE_TOKENS for edit in encoded]
