"""Commits groups of edits that have been trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.datasets import EditRequest
from melo_cli.editing.contradictions import Contradiction, contradiction_of
from melo_cli.editing.groups import PresentAnswer, TrainedGroup
from melo_cli.editing.plan import settings_digest
from melo_cli.editing.solving import Solution
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.model import Record
from melo_cli.scope.core.rules import Query
from melo_store.records import NewEdit
from melo_store.writer import Writer


@dataclass(frozen=True)
class EditOutcome:
    """The result of one edit: its row in the store, and the answers before and after.

    Attributes:
        contradicts: an older edit, or one of the same commit, that asks the same and has another answer.
    """

    edit_id: str
    status: str
    prompt: str
    target: str
    answer: str
    before: str
    contradicts: Contradiction | None = None


class Editor:
    """Writes the edits of one project through its single writer.

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

    def commit(self, requests: Sequence[EditRequest], group: TrainedGroup) -> list[EditOutcome]:
        """Commit one group of edits.

        Edits that the model answered right already are recorded as such; where the base does, they become
        neurons that lead to it, so that no other edit takes their prompts. Of the others only those really
        answered as asked become neurons.

        Args:
            requests: the edits.
            group: their result over the newest snapshot.

        Returns:
            One outcome for each request, in order.
        """
        solutions = dict(zip(group.wrong, group.solved.solutions, strict=True))
        rows = [
            self._row(request, group.labels[i], group.records[i], group.present[i], solutions.get(i))
            for i, request in enumerate(requests)
        ]
        staged = self._writer.stage(rows, group.solved.blocks)
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
                self._contradiction(edit_id, query) if row.key is not None else None,
            )
            for edit_id, row, before, query in zip(
                staged.edit_ids, rows, group.present, group.queries, strict=True
            )
        ]

    def _contradiction(self, edit_id: str, query: Query) -> Contradiction | None:
        return contradiction_of(self._open.routed.router, query, edit_id, self._writer.project)

    def _row(
        self,
        request: EditRequest,
        label: tuple[int, ...],
        record: Record,
        present: PresentAnswer,
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
            label=label,
            key=record.key if routes else None,
            tokens=record.tokens if routes and len(record.tokens) else None,
            block=block,
            radius=self._open.radius if routes else None,
            metrics=metrics,
        )
