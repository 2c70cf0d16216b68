"""Recomputes statuses and clusters from a project's edits, also under new keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import replace

import pyarrow as pa

from melo_store import validation
from melo_store.clusters.cluster_set import ClusterSet, all_put
from melo_store.clusters.rules import insert
from melo_store.commits.commit_delta import CommitDelta
from melo_store.commits.supersede import Prompts
from melo_store.edit_status import EditStatuses
from melo_store.format.segments import Edits, Segment, joined_column
from melo_store.format.tables import edits as edits_table
from melo_store.format.tables import keymaps
from melo_store.records import EFFECTIVE_STATUSES, KeyMap, Tokens, Vector, edit_id
from melo_store.state import State


def from_scratch(edits: Edits, reverted: Container[int]) -> tuple[EditStatuses, ClusterSet | None]:
    """Statuses and clusters as if all edits that are not reverted were inserted in the order of their
    numbers.

    Returns:
        No clusters where the edits have no keys.
    """
    gone = {number for number in range(1, edits.count + 1) if number in reverted}
    if edits.dim is None:
        return EditStatuses({}, gone), None
    edit_statuses = EditStatuses(Prompts(edits).replaced(gone), gone)
    clusters = ClusterSet(edits.dim, edits)
    for segment in edits.segments():
        for number in edit_statuses.live(segment.clustered).tolist():
            insert(clusters, edits.neuron(number))
    return edit_statuses, clusters


def rekeyed(
    state: State,
    key_map: KeyMap,
    keys: Mapping[str, Vector],
    tokens: Mapping[str, Tokens],
    radii: Mapping[str, float | None],
) -> CommitDelta:
    """What puts a key map in force: every edit with its new key, and all that follows from the keys.

    Raises:
        InvalidEditError, KeyShapeError, DamagedProjectError: see `Writer.rekey`.
    """
    state.require_whole(state.entries("edits"))
    neurons = state.edits.neurons().tolist()
    rows, width = validation.rekeying(neurons, key_map, keys, tokens, radii)
    change = CommitDelta(
        parent=state.pointer.number,
        dim=rows.shape[1] if neurons else None,
        width=width,
        key_map=keymaps.encode(key_map),
        replaces=state.paths("edits", "clusters", "states", "keymaps"),
        rewrites=True,
        counts=state.snapshot.info.counts,
    )
    if not state.edits.count:
        return change
    segment = _with_keys(state, dict(zip(neurons, rows, strict=True)), width or 0, tokens, radii)
    edits = Edits(change.dim, [(1, segment.rows, lambda: segment)])
    edit_statuses, clusters = from_scratch(edits, state.edit_statuses.reverted)
    counts = counted(edits, edit_statuses, clusters, state.block_count())
    return replace(
        change, segment=segment, edit_statuses=edit_statuses.rows(), delta=all_put(clusters), counts=counts
    )


def as_it_was(state: State, target: State) -> tuple[EditStatuses, ClusterSet | None]:
    """Statuses and clusters under the present keys, with the edits reverted that are not live in the
    target."""
    later = range(target.edits.count + 1, state.edits.count + 1)
    reverted = target.edit_statuses.reverted.union(later)
    if target.key_map_entry() == state.key_map_entry():
        return EditStatuses(target.edit_statuses.superseded, reverted), target.clusters
    return from_scratch(state.edits, reverted)


def counted(
    edits: Edits, edit_statuses: EditStatuses, clusters: ClusterSet | None, blocks: int
) -> dict[str, int]:
    """`SnapshotInfo.counts` of recomputed edits, statuses and clusters."""
    counts: Counter[str] = Counter()
    for segment in edits.segments():
        statuses = enumerate(segment.column("status"), segment.first)
        counts.update(edit_statuses.of(number, status) for number, status in statuses)
    return {
        "edits": edits.count,
        **{status: counts[status] for status in EFFECTIVE_STATUSES},
        "blocks": blocks,
        "clusters": clusters.count if clusters is not None else 0,
    }


def _with_keys(
    state: State,
    keys: Mapping[int, Vector],
    width: int,
    tokens: Mapping[str, Tokens],
    radii: Mapping[str, float | None],
) -> Segment:
    """All edits as one segment, with other keys, token vectors and radii; one without a key has no tokens."""
    segments = list(state.edits.segments())
    names = [edit_id(number) for number in range(1, state.edits.count + 1)]
    dim = len(next(iter(keys.values()))) if keys else 0
    schema = edits_table.schema_of(dim, width)
    old_radii = joined_column(segments, "radius").to_pylist()
    columns = {
        "key": edits_table.key_column([keys.get(number) for number in range(1, len(names) + 1)], dim),
        "tokens": edits_table.tokens_column([tokens.get(name) for name in names], width),
        "radius": pa.array(
            [radii.get(name, old) for name, old in zip(names, old_radii, strict=True)], pa.float64()
        ),
    }
    arrays = [columns[name] if name in columns else joined_column(segments, name) for name in schema.names]
    return Segment(pa.RecordBatch.from_arrays(arrays, schema=schema), 1, state.root)
