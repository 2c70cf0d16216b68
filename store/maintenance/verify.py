"""Check everything that a project holds: every byte, every reference, and the index against the keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melo_store.clusters.cluster_set import ClusterSet
from melo_store.clusters.rules import Cluster, distances
from melo_store.errors import DamagedProjectError, ProjectError
from melo_store.format import file_io, layout, manifest
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.format.segments import Edits, open_segment
from melo_store.index import index_file
from melo_store.records import FileEntry, block_id, edit_id
from melo_store.state import State

_ROUNDING = 1e-9
_KEYS_AT_ONCE = 1024
_MEANING = {
    "clusters": "the clusters",
    "states": "what became of older edits",
    "keymaps": "the key map, which makes every key,",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a project.

    Attributes:
        file: relative to the project.
        problem: what is wrong with it.
        lost: what cannot be had any more because of it.
    """

    file: str
    problem: str
    lost: str


def verify(root: Path, *, quick: bool = False) -> list[Finding]:
    """Check a project and change nothing; no finding means that it is whole.

    The bytes of every file of every kept snapshot are held against their checksums. Where those of the newest
    snapshot are sound, its references are followed: edit to block and shapes, cluster to members and keys,
    every live neuron to its cluster where it asked for one, and the saved index against the keys.

    Args:
        root: the project's folder.
        quick: check that every file is there and has its size, and read nothing else.

    Raises:
        ProjectNotFoundError: there is no project.
        FormatVersionError: it was written by a newer melo.
        StorageError: a file may not be read.
    """
    try:
        head = manifest.read_head(root)
    except DamagedProjectError as error:
        return [
            Finding(layout.MANIFEST, error.what, "the way to every snapshot, though their files may be whole")
        ]
    history, findings = readable_history(root, head)
    entries = {entry.path: entry for _, snapshot in history for entry in snapshot.files}
    findings += [
        Finding(entry.path, problem, _lost(root, entry, history))
        for entry in entries.values()
        if (problem := _problem(root, entry, quick=quick)) is not None
    ]
    if quick:
        return findings
    findings += index_problems(root)
    if not [finding for finding in findings if not finding.file.startswith(layout.INDEX)]:
        findings += _contents(root, head, have_index=not findings)
    return findings


def readable_history(root: Path, head: Head) -> tuple[list[tuple[Pointer, Snapshot]], list[Finding]]:
    """The kept snapshots, newest first, as far as they can be read."""
    snapshots: list[tuple[Pointer, Snapshot]] = []
    pointer: Pointer | None = head.newest
    while pointer is not None:
        try:
            snapshot = manifest.read_snapshot(root, pointer)
        except DamagedProjectError as error:
            lost = f"snapshots {head.oldest} to {pointer.number}"
            if not any(later.complete for _, later in snapshots):
                lost = f"{lost}, and with their file lists every later snapshot"
            return snapshots, [Finding(pointer.path, error.what, lost)]
        snapshots.append((pointer, snapshot))
        pointer = snapshot.parent if manifest.goes_on(head, snapshot) else None
    return snapshots, []


def _problem(root: Path, entry: FileEntry, *, quick: bool) -> str | None:
    """What is wrong with a data file; with `quick`, as far as its size says."""
    path = root / entry.path
    if quick and path.is_file() and path.stat().st_size == entry.size:
        return None
    return problem_of(root, entry.path, entry.size, entry.sha256)


def problem_of(root: Path, name: str, size: int, sha256: str) -> str | None:
    """What is wrong with a file; None where it has this size and checksum."""
    try:
        written = file_io.fingerprint(layout.inside(root, name))
    except FileNotFoundError:
        return "the file is missing"
    except DamagedProjectError as error:
        return error.what
    if written.size != size:
        return f"the file has {written.size} bytes instead of {size}"
    return None if written.sha256 == sha256 else "the file's checksum is wrong"


def _lost(root: Path, entry: FileEntry, history: list[tuple[Pointer, Snapshot]]) -> str:
    """What a broken data file takes with it."""
    last = entry.first + entry.rows - 1
    by, until = _span(entry, history)
    if entry.role == "edits":
        edits = f"the text and keys of edits {edit_id(entry.first)} to {edit_id(last)}"
        return edits if until == history[0][0].number else f"{edits} in snapshots {by} to {until}"
    if entry.role == "blocks":
        edits = _edits_of_blocks(root, entry.first, last, history)
        return f"blocks {block_id(entry.first)} to {block_id(last)}, and the answers of {edits}"
    since = f"every snapshot from {by} on" if until == history[0][0].number else f"those from {by} to {until}"
    return f"{_MEANING[entry.role]} of snapshot {by}, and with it {since}"


def _span(entry: FileEntry, history: list[tuple[Pointer, Snapshot]]) -> tuple[int, int]:
    """The first and the last snapshot that a file belongs to."""
    naming = [(p.number, s) for p, s in reversed(history) if s.complete or entry in s.files]
    first = next(number for number, snapshot in naming if entry in snapshot.files)
    without = [number for number, snapshot in naming if number > first and entry not in snapshot.files]
    return first, min(without) - 1 if without else history[0][0].number


def _edits_of_blocks(root: Path, first: int, last: int, history: list[tuple[Pointer, Snapshot]]) -> str:
    """The edits that lead to some blocks, as far as the edits files can be read."""
    numbers: set[int] = set()
    unread = 0
    entries = {e.path: (e, s) for _, s in history for e in s.files if e.role == "edits"}
    for entry, snapshot in entries.values():
        try:
            segment = open_segment(root, entry, snapshot.key_dim, snapshot.token_width)
        except DamagedProjectError:
            unread += 1
            continue
        rows = np.nonzero((segment.blocks >= first) & (segment.blocks <= last))[0]
        numbers.update((segment.first + rows).tolist())
    named = (
        f"edits {edit_id(min(numbers))} to {edit_id(max(numbers))}" if numbers else "no edit that can be read"
    )
    return f"{named} ({len(numbers)} in all" + (
        f", {unread} edits files could not be read)" if unread else ")"
    )


def index_problems(root: Path) -> list[Finding]:
    """What is wrong with the bytes of the saved index."""
    lost = "nothing: the index is built again when it is next needed"
    record = index_file.read_record(root)
    if record is None:
        broken = (root / layout.INDEX_RECORD).is_file()
        return [Finding(layout.INDEX_RECORD, "melo did not write this content", lost)] if broken else []
    problem = problem_of(root, record.path, record.size, record.sha256)
    if problem is not None and index_file.read_record(root) != record:  # a writer replaced it in this moment
        return index_problems(root)
    return [Finding(record.path, problem, lost)] if problem is not None else []


def _contents(root: Path, head: Head, *, have_index: bool) -> Iterator[Finding]:
    """What the newest snapshot says, held against itself; its files are what was written."""
    pointer, chain = manifest.find(root, head, None)
    troubles: list[str] = []

    try:
        state = State(root, head, pointer, chain, on_trouble=troubles.append)
        state.key_map()
        yield from _counts(state)
        yield from _blocks(state)
        if state.clusters is not None:
            yield from _clusters(state, state.clusters)
            yield from _graph(state)
    except ProjectError as error:
        yield Finding(error.where or pointer.path, error.what, f"snapshot {pointer.number}")
    if have_index and (root / layout.INDEX_RECORD).is_file():
        for trouble in troubles:
            yield Finding(layout.INDEX_RECORD, trouble, "nothing: the index is built again when it is needed")


def _counts(state: State) -> Iterator[Finding]:
    counted: dict[str, int] = defaultdict(int)
    for segment in state.edits.segments():
        for number, status in enumerate(segment.column("status"), segment.first):
            counted[state.edit_statuses.of(number, status)] += 1
        counted["edits"] += segment.rows
    counted["blocks"] = state.block_count()
    counted["clusters"] = state.clusters.count if state.clusters is not None else 0
    for name, said in state.snapshot.info.counts.items():
        if counted[name] != said:
            yield Finding(
                state.pointer.path, f"it counts {said} {name}, and there are {counted[name]}", "nothing"
            )


def _blocks(state: State) -> Iterator[Finding]:
    """Every block decodes, fits the others, and stands where edits look for it."""
    shapes: dict[str, tuple[int, int]] = {}
    blocks = set(state.block_numbers())
    for entry in state.entries("blocks"):
        for number in range(entry.first, entry.first + entry.rows):
            for module, part in state.block(block_id(number)).slices.items():
                shape = part.A.shape[1], part.B.shape[0]
                if shapes.setdefault(module, shape) != shape:
                    yield Finding(
                        entry.path, f"{module} has another shape in {block_id(number)}", block_id(number)
                    )
    for entry, segment in zip(state.entries("edits"), state.edits.segments(), strict=True):
        for number in segment.neurons.tolist():
            block = int(segment.blocks[number - segment.first])
            leads = block or state.edits.status(number) == "solved"
            if leads and block not in blocks and number not in state.edit_statuses.reverted:
                yield Finding(
                    entry.path, f"{edit_id(number)} leads to no block", f"the answer of {edit_id(number)}"
                )


def _clusters(state: State, clusters: ClusterSet) -> Iterator[Finding]:
    """Every live neuron that asked for a radius stands in one cluster, whose ball holds its key."""
    homes: dict[int, list[int]] = defaultdict(list)
    for cluster in clusters.clusters():
        for member in cluster.members:
            homes[member].append(cluster.number)
        problem = _ball(state.edits, cluster)
        if problem is not None:
            yield Finding(
                _clusters_file(state), f"cluster {cluster.number}: {problem}", "the routes through it"
            )
    live = {
        number
        for segment in state.edits.segments()
        for number in state.edit_statuses.live(segment.clustered).tolist()
    }
    for number in sorted(live ^ homes.keys() | {n for n, owners in homes.items() if len(owners) > 1}):
        problem = f"{edit_id(number)} stands in {len(homes.get(number, []))} clusters"
        yield Finding(_clusters_file(state), problem, f"the route of {edit_id(number)}")


def _ball(edits: Edits, cluster: Cluster) -> str | None:
    to_center = distances(edits.keys(cluster.members), cluster.center)
    if to_center.max() > cluster.radius + _ROUNDING:
        return "a member lies outside its ball"
    if any(edits.neuron(member).label != cluster.label for member in cluster.members):
        return "a member has another label"
    return None


def _graph(state: State) -> Iterator[Finding]:
    """The graph holds the keys that it stands for."""
    graph = state.index.graph
    if graph is None:
        return
    numbers = graph.numbers()
    parts = (numbers[start : start + _KEYS_AT_ONCE] for start in range(0, len(numbers), _KEYS_AT_ONCE))
    if any(not np.array_equal(graph.keys(part), state.edits.keys(part)) for part in parts):
        problem = "the index does not hold the keys of the neurons"
        yield Finding(layout.INDEX_RECORD, problem, "nothing: remove the index folder and it is built again")


def _clusters_file(state: State) -> str:
    """The newest clusters file; the table is read from all of them."""
    names = [entry.path for entry in state.files if entry.role == "clusters"]
    return names[-1] if names else state.pointer.path
