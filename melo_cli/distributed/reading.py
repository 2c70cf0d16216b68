"""Reads texts on Ray workers: for calibration, and for the routes of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.calibration import ReaderFactory
from melo_cli.distributed.pool import WorkerPool
from melo_cli.distributed.session import RaySession
from melo_cli.models.base_model import BaseModel
from melo_cli.recipe import Recipe
from melo_cli.scope.core.reader import Advance, TextReader, in_order
from melo_cli.scope.core.readings import Reading
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.reading import reader_for

_SHARES = 4
"""Tasks a worker: the last ones to be done keep fewer workers waiting."""


def ray_readers(session: RaySession) -> ReaderFactory:
    """Readers on the workers of a session, for `calibration.calibrate`."""

    def reader(recipe: Recipe, base: BaseModel) -> TextReader:
        return RayReader(session, recipe, base)

    return reader


class RayReader:
    """Reads what one process would read, in the same batches: the states are the same, bit for bit.

    Args:
        session: its workers are started at the first texts.
        recipe: resolved; names the key layer.
        base: the base model; workers read with weights of the dtype that this one has at that time.
        tuning: of its sentence encoder.
    """

    def __init__(
        self, session: RaySession, recipe: Recipe, base: BaseModel, tuning: Tuning | None = None
    ) -> None:
        self._session = session
        self._recipe = recipe
        self._base = base
        self._tuning = tuning or Tuning()

    def tuned(self, tuning: Tuning) -> RayReader:
        """See `Reader.tuned`."""
        return RayReader(self._session, self._recipe, self._base, tuning)

    def whole_words(self) -> Sequence[str]:
        """See `Reader.whole_words`."""
        return reader_for(self._base, self._recipe.key.layer).whole_words()

    def read(self, texts: Sequence[str], advance: Advance | None = None) -> Reading:
        """The states of the words of texts; see `Reader.read`."""
        pool = self._session.with_base(self._recipe, self._base)
        runs = _runs(reader_for(self._base, self._recipe.key.layer).batches(texts), pool)
        dtype = self._base.model.dtype
        parts = []
        for run, part in zip(
            runs,
            pool.map("read", (([texts[row] for row in run], dtype, self._tuning) for run in runs)),
            strict=True,
        ):
            parts.append(part)
            if advance is not None:
                advance(len(run))
        return in_order(parts, runs)


def _runs(batches: Sequence[Sequence[int]], pool: WorkerPool) -> list[list[int]]:
    """Runs of whole batches, some for each worker."""
    size = max(len(batches) // (_SHARES * pool.plan.workers), 1)
    starts = range(0, len(batches), size)
    return [[row for batch in batches[start : start + size] for row in batch] for start in starts]
