"""Edits as they would be after a commit: numbered, with what they replace and the clusters that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from store import checks, routes
from store.changes import NO_CHANGE, Change, Note
from store.clusters import Neuron
from store.overlay import Overlay, changed
from store.records import JSON, ROUTING, LoraSlice, NewEdit, Route, SnapshotInfo, edit_id
from store.segments import Edits, Segment
from store.space import ClusterSet
from store.state import State
from store.supersede import Prompts, replaced_by_new
from store.tables import blocks as blocks_table
from store.tables import edits as edits_table
from store.tables.edits import NumberedEdit

Commit: TypeAlias = Callable[[Change, Note], SnapshotInfo]


class Staged:
    """Edits as they would be after a commit; nothing is written until then, and dropping it undoes it."""

    def __init__(self, commit: Commit, change: Change, overlay: Overlay | None, edits: Edits) -> None:
        self._commit = commit
        self._change = change
        self._overlay = overlay
        self._edits = edits

    @property
    def edit_ids(self) -> list[str]:
        """The ids that the edits get, in the order in which they were handed in."""
        segment = self._change.segment
        return [edit_id(segment.first + row) for row in range(segment.rows)] if segment else []

    @property
    def superseded(self) -> dict[str, str]:
        """Older edits that are replaced, each with the edit that replaces it."""
        return {edit_id(old): edit_id(by) for old, _, by in self._change.fates if by is not None}

    def lookup(self, keys: ArrayLike) -> list[Route]:
        """The routes of keys float32 [n, d] as they would be after the commit.

        Raises:
            KeyShapeError: the keys do not fit.
        """
        points = checks.key_rows(keys, self._change.dim)
        if self._overlay is None:
            return [Route(None, None)] * len(points)
        return routes.lookup(self._overlay, self._edits, points)

    def commit(
        self,
        *,
        recipe: Mapping[str, JSON],
        seed: int,
        versions: Mapping[str, str],
        action: str = "edit",
        command: str | None = None,
        detail: Mapping[str, JSON] | None = None,
    ) -> SnapshotInfo:
        """Make this the next snapshot.

        Raises:
            StaleWriteError: the project has moved on since this was staged.
            StorageError: the file system refused; the project is as it was.
            InvalidEditError: recipe, versions or detail are no JSON values.
        """
        note = Note(action, recipe, seed, versions, command, detail or {})
        return self._commit(self._change, note)


def stage(
    state: State,
    prompts: Callable[[], Prompts],
    commit: Commit,
    edits: Sequence[NewEdit],
    blocks: Mapping[str, Mapping[str, LoraSlice]],
) -> Staged:
    """Apply edits over a snapshot; see `Writer.stage`.

    Args:
        prompts: those of all edits so far.
        commit: what `Staged.commit` calls.
    """
    dim = checks.edits(edits, blocks, state.snapshot.key_dim)
    first, first_block = state.edits.count + 1, state.block_count() + 1
    new = [
        (_neuron(number, edit), edit.prompt)
        for number, edit in enumerate(edits, first)
        if edit.key is not None and edit.status in ROUTING
    ]
    kept = list(dict.fromkeys(str(edit.block) for edit in edits if edit.status == "solved"))
    space = state.space(dim) if dim is not None else None
    replaced = _replaced(space, new, prompts)
    rows = _numbered(edits, first, {name: n for n, name in enumerate(kept, first_block)}, replaced)
    segment, together = _with_new(state, rows, dim)
    overlay = None
    if space is not None:
        gone = [old for old in replaced if old < first]
        standing = [neuron for neuron, _ in new if neuron.number not in replaced]
        overlay = changed(space, together, gone, [], standing)
    change = Change(
        parent=state.pointer.number,
        dim=dim,
        segment=segment,
        blocks=[blocks_table.encode(number, blocks[name]) for number, name in enumerate(kept, first_block)],
        first_block=first_block,
        delta=overlay.delta() if overlay is not None else NO_CHANGE,
        fates=[(old, False, by) for old, by in sorted(replaced.items())],
    )
    return Staged(commit, change, overlay, together)


def _replaced(
    space: ClusterSet | None, new: Sequence[tuple[Neuron, str]], prompts: Callable[[], Prompts]
) -> dict[int, int]:
    """Numbers of the edits that new neurons replace, each with the number of the one that does."""
    if space is None or not new:
        return {}
    space.expect(np.stack([neuron.key for neuron, _ in new]), max(neuron.radius for neuron, _ in new))
    return replaced_by_new(space, space.owners, new, prompts())


def _with_new(state: State, rows: Sequence[NumberedEdit], dim: int | None) -> tuple[Segment | None, Edits]:
    """New edits as a segment in memory, and all edits together with them."""
    if not rows:
        return None, state.edits
    segment = Segment(edits_table.encode(rows, datetime.now(UTC)), rows[0].number, state.root)
    return segment, state.edits.with_segment(segment.first, segment.rows, lambda: segment, dim)


def _neuron(number: int, edit: NewEdit) -> Neuron:
    assert edit.key is not None and edit.radius is not None, "checked before"
    return Neuron(number, np.array(edit.key, np.float32), tuple(edit.label), float(edit.radius))


def _numbered(
    edits: Sequence[NewEdit], first: int, blocks: Mapping[str, int], replaced: Mapping[int, int]
) -> list[NumberedEdit]:
    """New edits with their numbers, those of their blocks, and those of the edits that they replace."""
    supersedes: dict[int, list[int]] = defaultdict(list)
    for old, by in sorted(replaced.items()):
        supersedes[by].append(old)
    return [
        NumberedEdit(number, edit, blocks.get(edit.block or ""), tuple(supersedes[number]))
        for number, edit in enumerate(edits, first)
    ]
