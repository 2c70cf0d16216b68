"""The status of edits after their commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from melo_store.clusters.rules import Numbers
from melo_store.records import EffectiveStatus

EditStatusRow: TypeAlias = tuple[int, bool, int | None]
"""An edit's number, whether it is reverted, and which newer edit superseded it."""


@dataclass(frozen=True, slots=True)
class EditStatuses:
    """Status changes of edits after their commit; an edit in neither mapping has its committed status.

    Attributes:
        superseded: for each superseded edit, the number of the newer edit.
        reverted: numbers of edits taken back.
    """

    superseded: dict[int, int]
    reverted: set[int]

    def of(self, number: int, committed: str) -> EffectiveStatus:
        """The effective status of an edit that was committed with this status."""
        if number in self.reverted:
            return "reverted"
        if number in self.superseded or committed == "superseded":
            return "superseded"
        return (
            "failed" if committed == "failed" else "already_right" if committed == "already_right" else "live"
        )

    def live(self, neurons: Numbers) -> Numbers:
        """Those of the neurons [n] that answer."""
        out = np.array([*self.superseded, *self.reverted], np.int64)
        return neurons[~np.isin(neurons, out)]

    def changed(self, rows: Iterable[EditStatusRow]) -> EditStatuses:
        """These statuses, updated by rows."""
        superseded, reverted = dict(self.superseded), set(self.reverted)
        for number, is_reverted, by in rows:
            superseded.pop(number, None)
            reverted.discard(number)
            if is_reverted:
                reverted.add(number)
            elif by is not None:
                superseded[number] = by
        return EditStatuses(superseded, reverted)

    def row(self, number: int) -> EditStatusRow:
        """The row of an edit, for `changed`."""
        return number, number in self.reverted, self.superseded.get(number)

    def rows(self) -> list[EditStatusRow]:
        """The rows of all edits with a changed status, ascending; `NO_STATUSES.changed` of them gives this
        object."""
        numbers = sorted(self.reverted | self.superseded.keys())
        return [self.row(number) for number in numbers]


NO_STATUSES = EditStatuses({}, set())
