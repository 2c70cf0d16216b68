"""Asks the probes of `melo eval` on Ray workers."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.distributed.reading import RayReader
from melo_cli.distributed.session import RaySession
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.inference import Advance, Inference, TokenScores, batches_of_like_length
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.router import Router, VerifiedRecorder
from melo_cli.scope.core.rules import Route


class RayInference(Inference):
    """Asks in the batches of one process, each of them on a worker: the results are the same, bit for bit.

    Under the rule `radius` routes are looked up in this process.

    Args:
        session: its workers.
        opened: the project.
    """

    def __init__(self, session: RaySession, opened: OpenProject) -> None:
        super().__init__(opened.routed, opened.encoder)
        self._pool = session.with_project(opened)
        router = opened.routed.router
        self._router = router
        if isinstance(router.recorder, VerifiedRecorder):
            reader = RayReader(session, opened.recipe, opened.routed.base)
            self._router = Router(router.recorder.read_by(reader), router.rule, router.neurons)

    def routes(self, prompts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        return self._router.routes(prompts, advance) if prompts else []

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        blocks: Sequence[str | None],
        max_new_tokens: Sequence[int],
        advance: Advance | None = None,
    ) -> list[str]:
        lengths = [len(prompt) + most for prompt, most in zip(prompts, max_new_tokens, strict=True)]
        batches = list(batches_of_like_length(lengths))
        calls = (
            ([prompts[i] for i in batch], [blocks[i] for i in batch], [max_new_tokens[i] for i in batch])
            for batch in batches
        )
        answers = [""] * len(prompts)
        for batch, written in zip(batches, self._pool.map("answers", calls), strict=True):
            for index, answer in zip(batch, written, strict=True):
                answers[index] = answer
            if advance is not None:
                advance(len(batch))
        return answers

    def scores(
        self, edits: Sequence[EncodedEdit], blocks: Sequence[str | None], advance: Advance | None = None
    ) -> list[TokenScores]:
        batches = list(
            batches_of_like_length([len(edit.prompt_ids) + len(edit.target_ids) for edit in edits])
        )
        calls = (([edits[i] for i in batch], [blocks[i] for i in batch]) for batch in batches)
        scores: dict[int, TokenScores] = {}
        for batch, rows in zip(batches, self._pool.map("scores", calls), strict=True):
            scores.update(zip(batch, rows, strict=True))
            if advance is not None:
                advance(len(batch))
        return [scores[index] for index in range(len(edits))]
