"""The content of a commit: the change of a snapshot, and its metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from melo_store.clusters.cluster_set import ClusterSet
from melo_store.clusters.delta import NO_CHANGE, ClusterDelta
from melo_store.edit_status import NO_STATUSES, EditStatusRow
from melo_store.format.segments import Segment
from melo_store.format.tables import blocks, clusters, keymaps, states
from melo_store.records import JSON, SnapshotInfo

if TYPE_CHECKING:
    from melo_store.state import State


@dataclass(frozen=True, slots=True)
class CommitDelta:
    """What a commit adds to a snapshot, or writes anew.

    Attributes:
        dim: size of a key.
        width: size of a token vector.
        segment: the new edits.
        blocks: the new blocks, one record batch each.
        delta: how the clusters change.
        clusters: what they are then; a change that rewrites leaves it out.
        edit_statuses: changed statuses of older edits.
        key_map: a key map to put in force, as a record batch.
        rewrites: the new snapshot lists all of its files, and not those in `replaces`.
        replaces: paths of files that are no part of the new snapshot; a `State` that goes over to it is read
            from the disk.
        counts: `SnapshotInfo.counts` of the new snapshot, where it rewrites; else see `counts_after`.
    """

    parent: int
    dim: int | None
    width: int | None
    segment: Segment | None = None
    blocks: Sequence[Any] = ()
    first_block: int = 0
    delta: ClusterDelta = NO_CHANGE
    clusters: ClusterSet | None = None
    edit_statuses: Sequence[EditStatusRow] = ()
    key_map: Any | None = None
    replaces: frozenset[str] = frozenset()
    rewrites: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """The metadata of a commit; see `SnapshotInfo`."""

    action: str
    recipe: Mapping[str, JSON]
    seed: int
    versions: Mapping[str, str]
    command: str | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


def metadata_like(
    info: SnapshotInfo,
    action: str,
    versions: Mapping[str, str],
    command: str | None,
    detail: Mapping[str, JSON],
) -> CommitMetadata:
    """The metadata of a commit without its own recipe: recipe and seed are those of a snapshot."""
    return CommitMetadata(action, info.recipe, info.seed, versions, command, detail)


def counts_after(state: State, change: CommitDelta) -> dict[str, int]:
    """`SnapshotInfo.counts` after a change that only adds to a snapshot."""
    counts = dict(state.snapshot.info.counts)
    segment = change.segment
    committed = dict(enumerate(segment.column("status"), segment.first)) if segment is not None else {}
    for status in committed.values():
        counts[NO_STATUSES.of(0, status)] += 1
    after = state.edit_statuses.changed(change.edit_statuses)
    for number, _, _ in change.edit_statuses:
        status = committed[number] if number in committed else state.edits.status(number)
        counts[state.edit_statuses.of(number, status)] -= 1
        counts[after.of(number, status)] += 1
    counts["edits"] += len(committed)
    counts["blocks"] += len(change.blocks)
    counts["clusters"] = change.clusters.count if change.clusters is not None else 0
    return counts


def batches(change: CommitDelta, number: int) -> Iterator[tuple[str, Any, Sequence[Any], int, int]]:
    """Role, schema, record batches, first number and count of each data file that a change needs."""
    if change.segment is not None:
        segment = change.segment
        yield "edits", segment.batch.schema, [segment.batch], segment.first, segment.rows
    if change.blocks:
        yield "blocks", blocks.SCHEMA, change.blocks, change.first_block, len(change.blocks)
    if change.delta:
        batch = clusters.encode(change.delta, number)
        yield "clusters", clusters.SCHEMA, [batch], 0, batch.num_rows
    if change.edit_statuses:
        batch = states.encode(change.edit_statuses)
        yield "states", states.SCHEMA, [batch], 0, batch.num_rows
    if change.key_map is not None:
        yield "keymaps", keymaps.SCHEMA, [change.key_map], 0, 1
