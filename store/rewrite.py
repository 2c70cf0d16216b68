"""Work out from scratch what a project's edits make of it, and write it down anew under other keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import replace

import pyarrow as pa

from store import checks
from store.changes import NO_CHANGE, Change
from store.clusters import insert
from store.deltas import ClusterDelta
from store.fates import Fates
from store.records import EFFECTIVE_STATUSES, KeyMap, Vector
from store.segments import Edits, Segment, joined_column
from store.space import ClusterSet
from store.state import State
from store.supersede import replaced_in_all
from store.tables import edits as edits_table
from store.tables import keymaps


def from_scratch(edits: Edits, reverted: Container[int]) -> tuple[Fates, ClusterSet | None]:
    """Fates and clusters as if the edits that are not reverted had been inserted in order of number.

    Returns:
        No clusters where the edits have no keys.
    """
    gone = {number for number in range(1, edits.count + 1) if number in reverted}
    if edits.dim is None:
        return Fates({}, gone), None
    fates = Fates(replaced_in_all(edits, gone), gone)
    space = ClusterSet(edits.dim, edits)
    for segment in edits.segments():
        for number in segment.neurons():
            if number not in gone and number not in fates.superseded:
                insert(space, edits.neuron(number))
    return fates, space


def rekeyed(state: State, key_map: KeyMap, keys: Mapping[str, Vector], radii: Mapping[str, float]) -> Change:
    """What puts a key map in force: every edit with its new key, and all that follows from the keys.

    Raises:
        InvalidEditError, KeyShapeError, DamagedProjectError: see `Writer.rekey`.
    """
    state.require_whole(state.entries("edits"))
    neurons = [number for segment in state.edits.segments() for number in segment.neurons()]
    rows, asked = checks.rekeying(neurons, key_map, keys, radii)
    change = Change(
        parent=state.pointer.number,
        dim=rows.shape[1] if neurons else None,
        key_map=keymaps.encode(key_map),
        replaces=state.paths("edits", "clusters", "states", "keymaps"),
        rewrites=True,
        counts=state.snapshot.info.counts,
    )
    if not state.edits.count:
        return change
    segment = _with_keys(state, dict(zip(neurons, rows, strict=True)), dict(zip(neurons, asked, strict=True)))
    edits = Edits(change.dim, [(1, segment.rows, lambda: segment)])
    fates, space = from_scratch(edits, state.fates.reverted)
    counts = counted(edits, fates, space, state.block_count())
    return replace(change, segment=segment, fates=fates.rows(), delta=all_put(space), counts=counts)


def as_it_was(state: State, target: State) -> tuple[Fates, ClusterSet | None]:
    """Fates and clusters under the present keys, with those edits reverted that the target does not have."""
    later = range(target.edits.count + 1, state.edits.count + 1)
    reverted = target.fates.reverted.union(later)
    if target.key_map_entry() == state.key_map_entry():
        return Fates(target.fates.superseded, reverted), target.clusters
    return from_scratch(state.edits, reverted)


def difference_of(now: ClusterSet | None, then: ClusterSet | None) -> ClusterDelta:
    """What turns the clusters of now into those of then."""
    if now is None or then is None:
        return ClusterDelta((), sorted(cluster.number for cluster in now.clusters()) if now else ())
    put = [c for c in then.clusters() if c.number not in now or not now.get(c.number).same_as(c)]
    gone = [cluster.number for cluster in now.clusters() if cluster.number not in then]
    return ClusterDelta(sorted(put, key=lambda cluster: cluster.number), sorted(gone))


def counted(edits: Edits, fates: Fates, space: ClusterSet | None, blocks: int) -> dict[str, int]:
    """`SnapshotInfo.counts` of edits, fates and clusters that were worked out anew."""
    found: Counter[str] = Counter()
    for segment in edits.segments():
        statuses = enumerate(segment.column("status"), segment.first)
        found.update(fates.of(number, status) for number, status in statuses)
    return {
        "edits": edits.count,
        **{status: found[status] for status in EFFECTIVE_STATUSES},
        "blocks": blocks,
        "clusters": space.count if space is not None else 0,
    }


def all_put(space: ClusterSet | None) -> ClusterDelta:
    """All clusters of a set, as what they add to none."""
    if space is None:
        return NO_CHANGE
    return ClusterDelta(sorted(space.clusters(), key=lambda cluster: cluster.number), ())


def _with_keys(state: State, keys: Mapping[int, Vector], radii: Mapping[int, float]) -> Segment:
    """All edits as one segment, with other keys and radii; an edit that has none here has no key."""
    segments = list(state.edits.segments())
    numbers = range(1, state.edits.count + 1)
    schema = edits_table.schema_of(len(next(iter(keys.values()))) if keys else 0)
    old_radii = joined_column(segments, "radius").to_pylist()
    columns = {
        "key": edits_table.key_column(
            [keys.get(number) for number in numbers], schema.field("key").type.list_size
        ),
        "radius": pa.array(
            [radii.get(number, old) for number, old in zip(numbers, old_radii, strict=True)], pa.float64()
        ),
    }
    arrays = [columns[name] if name in columns else joined_column(segments, name) for name in schema.names]
    return Segment(pa.RecordBatch.from_arrays(arrays, schema=schema), 1, state.root)
