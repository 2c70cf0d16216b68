"""Compaction: merges the files of many small commits, so that a project opens as fast as after one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from melo_store.clusters.cluster_set import all_put
from melo_store.commits.commit_delta import CommitDelta, metadata_like
from melo_store.format.merge_plan import Merge, merges
from melo_store.format.segments import Segment, joined
from melo_store.records import JSON, FileEntry, SnapshotInfo
from melo_store.state import State
from melo_store.writer import Writer


def compact(writer: Writer, *, versions: Mapping[str, str], command: str | None = None) -> SnapshotInfo:
    """Merge the many small files of the newest snapshot, in a new one that holds the same.

    Where there are not many, no snapshot is made.

    Raises:
        DamagedProjectError: a file is broken.
        StorageError: the file system refused; the project is as it was.
    """
    info = writer.state.snapshot.info
    planned = merges(writer.state.files)
    if not planned:
        return info
    detail: dict[str, JSON] = {"merged": {merge.role: len(merge.files) for merge in planned}}
    metadata = metadata_like(info, "compact", versions, command, detail)
    return writer.commit(compacted(writer.state, planned), metadata)


def compacted(state: State, planned: Sequence[Merge]) -> CommitDelta:
    """The change that merges files and leaves everything else as it is.

    Raises:
        DamagedProjectError: one of the files is broken.
    """
    files = {merge.role: merge.files for merge in planned}
    state.require_whole(entry for merge in planned for entry in merge.files)
    change = CommitDelta(
        parent=state.pointer.number,
        dim=state.snapshot.key_dim,
        width=state.snapshot.token_width,
        replaces=frozenset(entry.path for merge in planned for entry in merge.files),
        rewrites=True,
        counts=state.snapshot.info.counts,
    )
    if "edits" in files:
        change = replace(change, segment=_joined(state, files["edits"]))
    if "blocks" in files:
        first, last = files["blocks"][0].first, files["blocks"][-1]
        numbers = range(first, last.first + last.rows)
        change = replace(change, blocks=[state.block_batch(n)[0] for n in numbers], first_block=first)
    if "clusters" in files and state.clusters is not None:
        change = replace(change, delta=all_put(state.clusters))
    if "states" in files:
        change = replace(change, edit_statuses=state.edit_statuses.rows())
    return change


def _joined(state: State, files: Sequence[FileEntry]) -> Segment:
    wanted = set(files)
    every = zip(state.entries("edits"), state.edits.segments(), strict=True)
    return joined([segment for entry, segment in every if entry in wanted], state.root)
