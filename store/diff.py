"""The difference of two snapshots: edits that were added, removed or superseded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from melo_store.project import Project
from melo_store.records import EditRecord, EffectiveStatus

Kind: TypeAlias = Literal["added", "removed", "superseded", "recorded"]


@dataclass(frozen=True, slots=True)
class EditChange:
    """An edit whose status is another one in another snapshot.

    Attributes:
        before: its status in the first snapshot; None where it is not there.
        after: its status in the second.
        superseded_by: id of the edit that superseded it in the second snapshot.
    """

    record: EditRecord
    before: EffectiveStatus | None
    after: EffectiveStatus | None
    superseded_by: str | None

    @property
    def kind(self) -> Kind:
        """``added`` answers in the second snapshot alone; ``removed`` and ``superseded`` in the first alone.

        ``recorded`` answers in neither: such as one that failed.
        """
        if self.after == "live":
            return "added"
        if self.before == "live":
            return "superseded" if self.after == "superseded" else "removed"
        return "recorded"


def difference(before: Project, after: Project) -> list[EditChange]:
    """The edits whose status differs between two snapshots of one project, oldest first."""
    first, second = before.statuses(), after.statuses()
    longer = after if len(second) >= len(first) else before
    names = list(longer.statuses())
    changed = [name for name in names if first.get(name) != second.get(name)]
    return [
        EditChange(
            longer.edit(name).record,
            first.get(name),
            second.get(name),
            after.edit(name).superseded_by if name in second else None,
        )
        for name in changed
    ]
