"""Staging: applies edits to the newest snapshot in memory: their numbers, what they supersede, and the
clusters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

from numpy.typing import ArrayLike

from melo_store import validation
from melo_store.clusters.cluster_set import ClusterSet, changed
from melo_store.commits.commit_delta import CommitDelta, CommitMetadata
from melo_store.commits.supersede import Prompts, replaced_by_new
from melo_store.errors import StaleWriteError
from melo_store.format.segments import Edits, Segment
from melo_store.format.tables import blocks as blocks_table
from melo_store.format.tables import edits as edits_table
from melo_store.format.tables.edits import NumberedEdit
from melo_store.index.nearest_neighbours import neighbours
from melo_store.index.neuron_index import NeuronIndex
from melo_store.records import JSON, ROUTING, LoraSlice, Neighbour, NewEdit, SnapshotInfo, edit_id
from melo_store.state import State

Commit: TypeAlias = Callable[[CommitDelta, CommitMetadata], SnapshotInfo]
Newest: TypeAlias = Callable[[], State]
"""Gives the newest snapshot of a writer."""


class Staged:
    """Edits as they would be after a commit; nothing is written until then, and dropping it undoes it."""

    def __init__(self, commit: Commit, change: CommitDelta, newest: Newest, edits: Edits) -> None:
        self._commit = commit
        self._change = change
        self._newest = newest
        self._edits = edits
        self._index: NeuronIndex | None = None

    @property
    def edit_ids(self) -> list[str]:
        """The ids that the edits get, in the order in which they were handed in."""
        segment = self._change.segment
        return [edit_id(segment.first + row) for row in range(segment.rows)] if segment else []

    @property
    def superseded(self) -> dict[str, str]:
        """Older edits that are replaced, each with the edit that replaces it."""
        return {edit_id(old): edit_id(by) for old, _, by in self._change.edit_statuses if by is not None}

    def nearest(self, keys: ArrayLike, k: int = 8) -> list[list[Neighbour]]:
        """The nearest neurons of keys float32 [n, d], as `Project.nearest` would give them after the commit.

        Raises:
            KeyShapeError: the keys do not fit.
            StaleWriteError: the project has moved on since this was staged, by its own commit or another's.
        """
        change, state = self._change, self._newest()
        if state.pointer.number != change.parent:
            raise StaleWriteError(
                f"these edits were staged over snapshot {change.parent}, but the newest snapshot is "
                f"{state.pointer.number}",
                where=str(state.root),
                hint="query the newest snapshot",
            )
        points = validation.key_rows(keys, change.dim)
        if change.dim is None:
            return [[] for _ in points]
        if self._index is None:
            live = state.edit_statuses.changed(change.edit_statuses).live(self._edits.neurons())
            known = state.index if state.clusters is not None else NeuronIndex.of_none(change.dim)
            self._index = known.over(live, self._edits.keys)
        return neighbours(self._index, self._edits, change.clusters, points, k)

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
        metadata = CommitMetadata(action, recipe, seed, versions, command, detail or {})
        return self._commit(self._change, metadata)


def stage(
    newest: Newest,
    prompts: Callable[[], Prompts],
    commit: Commit,
    edits: Sequence[NewEdit],
    blocks: Mapping[str, Mapping[str, LoraSlice]],
) -> Staged:
    """Apply edits over the newest snapshot; see `Writer.stage`.

    Args:
        prompts: those of all edits so far.
        commit: what `Staged.commit` calls.
    """
    state = newest()
    dim, width = validation.edits(edits, blocks, state.snapshot.key_dim, state.snapshot.token_width)
    first, first_block = state.edits.count + 1, state.block_count() + 1
    new = [
        (number, edit.prompt)
        for number, edit in enumerate(edits, first)
        if edit.key is not None and edit.status in ROUTING
    ]
    kept = list(dict.fromkeys(str(edit.block) for edit in edits if edit.status == "solved"))
    replaced = replaced_by_new(state.edit_statuses, new, prompts()) if new else {}
    rows = _numbered(edits, first, {name: n for n, name in enumerate(kept, first_block)}, replaced)
    segment, together = _with_new(state, rows, dim)
    change = CommitDelta(
        parent=state.pointer.number,
        dim=dim,
        width=width,
        segment=segment,
        blocks=[blocks_table.encode(number, blocks[name]) for number, name in enumerate(kept, first_block)],
        first_block=first_block,
        edit_statuses=[(old, False, by) for old, by in sorted(replaced.items())],
    )
    if dim is not None:
        before = state.clusters if state.clusters is not None else ClusterSet(dim, together)
        standing = segment.clustered.tolist() if segment is not None else []
        neurons = [together.neuron(number) for number in standing if number not in replaced]
        after = changed(before, together, replaced, [], neurons)
        change = replace(change, clusters=after, delta=after.since(before))
    return Staged(commit, change, newest, together)


def _with_new(state: State, rows: Sequence[NumberedEdit], dim: int | None) -> tuple[Segment | None, Edits]:
    """New edits as a segment in memory, and all edits together with them."""
    if not rows:
        return None, state.edits
    segment = Segment(edits_table.encode(rows, datetime.now(UTC)), rows[0].number, state.root)
    return segment, state.edits.with_segment(segment.first, segment.rows, lambda: segment, dim)


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
