"""Edits of a project that is being served, made in a thread of their own over the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from melo_cli.datasets import EditRequest
from melo_cli.editing import EditOutcome, edit_opened
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, follow_newest
from melo_cli.serving.openai_schema import EditBody
from melo_cli.torch_threads import pool_of_one
from melo_cli.versions import library_versions
from melo_store.writer import open_writer

_T = TypeVar("_T")
_COMMAND = "melo serve"


class ProjectEditor:
    """Makes and reverts edits, one after another.

    Args:
        opened: a project whose model no other thread uses.
        threads: threads that torch trains with.
    """

    def __init__(self, opened: OpenProject, threads: int) -> None:
        self._opened = opened
        self._threads = threads
        self._pool = ThreadPoolExecutor(1, "melo-edits")

    async def edit(self, body: EditBody) -> EditOutcome:
        """Make an edit, as `melo edit` does.

        Raises:
            MeloError: the edit does not fit the model, or another process writes.
        """
        return await self._run(lambda: self._edit(body))

    async def revert(self, edit_ids: Sequence[str]) -> int:
        """Take edits back, and say which snapshot that made.

        Raises:
            MeloError: there is no such edit, or another process writes.
        """
        return await self._run(lambda: self._revert(edit_ids))

    def stop(self) -> None:
        """Finish the edit in hand, and make no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._alone, work)

    def _alone(self, work: Callable[[], _T]) -> _T:
        """Work in a thread that ends with it: torch's helpers end with it too, and leave answers alone."""
        with pool_of_one("melo-edit", self._threads) as own:
            return own.submit(work).result()

    def _edit(self, body: EditBody) -> EditOutcome:
        self._opened = follow_newest(self._opened)
        request = EditRequest(
            body.prompt,
            body.target,
            tuple(body.rephrases),
            tuple((prompt, None) for prompt in body.locality),
            subject=body.subject,
        )
        summary = edit_opened(self._opened, request, SilentReporter(), command=_COMMAND)
        (outcome,) = summary.outcomes
        return outcome

    def _revert(self, edit_ids: Sequence[str]) -> int:
        self._opened = follow_newest(self._opened)
        with open_writer(self._opened.project) as writer:
            writer.revert(list(edit_ids), versions=library_versions(), command=_COMMAND)
            snapshot = writer.project.snapshot
        self._opened = follow_newest(self._opened)
        return snapshot
