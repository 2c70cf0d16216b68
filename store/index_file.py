"""The index on the disk: a cache, checked before it is loaded, built again when it fails.

``index/index.json`` holds the directions of the sketches, and names the file of the HNSW graph over them, its
checksum and the snapshot that it was saved at. A graph serves every snapshot of its history: centers that it
lacks are sketched on loading, and those that it has too many are marked as deleted, by labels that name
cluster and version. So saving it now and then is enough, and the cost of a commit does not grow with the
store: centers join the graph, and it is saved, when one in `SHARE` has changed since it was saved, and when a
writer is done and more than `CATCH_UP` have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from store import fileio, index, layout
from store.graph import Graph
from store.index import CenterIndex, Sketched
from store.sketch import Sketch
from store.space import ClusterSet, build_index

CATCH_UP = 256
"""Centers that may be missing from the saved graph when a writer ends."""

SHARE = 8
"""A commit waits until these have joined the graph: 0.25 ms a center, at 90,000 some 2.5 s. A larger number
makes it shorter, and writes the graph (36 MB there) as often again."""

_MAX_RECORD = 1 << 26


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """The content of ``index/index.json``.

    Attributes:
        snapshot: sha256 of the snapshot file that the graph was saved at, and its number.
        dim: size of the keys.
        hidden: labels marked as deleted.
        sketch: see `Sketch.text`; empty in a file from before there were sketches.
    """

    path: str
    size: int
    sha256: str
    dim: int
    number: int
    snapshot: str
    hidden: tuple[int, ...]
    sketch: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An index for a set of clusters, and how it came about.

    Attributes:
        changed: how many centers the saved graph lacked or had too many.
        trouble: why the saved graph was not used; None where it was, or where none is needed.
    """

    index: CenterIndex
    changed: int
    trouble: str | None


def load(root: Path, clusters: ClusterSet, snapshot_sha256: Callable[[int], str | None]) -> Loaded:
    """The index for clusters, from the saved graph where there is a sound one.

    Args:
        snapshot_sha256: checksum of the snapshot file of a number, in this project's history.
    """
    if clusters.count < index.GRAPH_FROM:
        return Loaded(build_index(clusters), clusters.count, None)
    try:
        saved = _read(root, clusters.dim, snapshot_sha256)
    except _UnusableError as error:
        return Loaded(build_index(clusters), clusters.count, str(error))
    if saved is None or not _serves(saved[1], clusters):
        return Loaded(build_index(clusters), clusters.count, None)
    return _caught_up(*saved, clusters)


def save(root: Path, centers: CenterIndex, number: int, snapshot_sha256: str) -> None:
    """Save an index that fits a snapshot, where it is more than a matrix; the caller holds the writer's lock.

    Raises:
        StorageError: the file system refused; what was saved before still stands.
    """
    centers.settle()
    if centers.sketched is None:
        return
    graph, sketch = centers.sketched.graph, centers.sketched.sketch
    name = layout.index_name(number)
    target = layout.inside(root, name)
    fileio.make_folder(target.parent)
    before = read_record(root)
    scratch = layout.temporary(target)
    with fileio.refusals(target):
        size = graph.save(scratch)
        fileio.require_size(scratch, size)
    fileio.sync_file(scratch)
    written = fileio.fingerprint(scratch)
    fileio.rename(scratch, target)
    record = IndexRecord(
        path=name,
        size=size,
        sha256=written.sha256,
        dim=len(sketch.origin),
        number=number,
        snapshot=snapshot_sha256,
        hidden=tuple(sorted(graph.hidden)),
        sketch=sketch.text(),
    )
    where = root / layout.INDEX_RECORD
    fileio.replace_file(where, _record_bytes(record), layout.temporary(where))
    if before is not None and before.path != name:
        fileio.remove(root / before.path)


def read_record(root: Path) -> IndexRecord | None:
    """What ``index/index.json`` says; None where it is missing or broken."""
    path = root / layout.INDEX_RECORD
    if not path.is_file():
        return None
    with fileio.refusals(path), path.open("rb") as file:
        content = file.read(_MAX_RECORD)
    try:
        document = json.loads(content)
        body = json.dumps(document["record"], sort_keys=True)
        if hashlib.sha256(body.encode()).hexdigest() != document["check"]:
            return None
        record = IndexRecord(**{**document["record"], "hidden": tuple(document["record"]["hidden"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: IndexRecord) -> bool:
    """Whether every field has its type and range."""
    whole = (record.size, record.dim, record.number, *record.hidden)
    texts = (record.path, record.sha256, record.snapshot, record.sketch)
    return (
        all(isinstance(value, int) and 0 <= value < 1 << 62 for value in whole)
        and all(isinstance(value, str) for value in texts)
        and layout.is_index_name(record.path)
    )


class _UnusableError(Exception):
    """Why a saved graph cannot be used."""


def _read(root: Path, dim: int, snapshot_sha256: Callable[[int], str | None]) -> tuple[Sketch, Graph] | None:
    """What was saved; None where it is for other keys, as after a re-keying, or has no sketches."""
    record = read_record(root)
    for _ in range(2):
        if record is None:
            raise _UnusableError("the index file is missing or damaged")
        try:
            return _read_graph(root, record, dim, snapshot_sha256)
        except _UnusableError:
            newer = read_record(root)  # a writer may have replaced the file in this moment
            if newer == record:
                raise
            record = newer
    raise _UnusableError("the index file changes while it is read")


def _read_graph(
    root: Path, record: IndexRecord, dim: int, snapshot_sha256: Callable[[int], str | None]
) -> tuple[Sketch, Graph] | None:
    if snapshot_sha256(record.number) != record.snapshot:
        raise _UnusableError("the index file belongs to another state of the project")
    if record.dim != dim or not record.sketch:
        return None
    path = layout.inside(root, record.path)
    try:
        written = fileio.fingerprint(path)
        if (written.size, written.sha256) != (record.size, record.sha256):
            raise _UnusableError("the index file is damaged")
        sketch = Sketch.from_text(record.sketch, dim)
        return sketch, Graph.load(path, sketch.size, set(record.hidden))
    except FileNotFoundError as error:
        raise _UnusableError("the index file is missing") from error
    except (RuntimeError, ValueError) as error:
        raise _UnusableError("the index file is damaged") from error


def _serves(graph: Graph, clusters: ClusterSet) -> bool:
    """Whether enough of the graph is of use; after a re-keying nothing of it is."""
    held = np.concatenate([graph.labels(), np.fromiter(graph.hidden, np.int64, len(graph.hidden))])
    return 2 * len(np.intersect1d(held, clusters.labels())) >= clusters.count


def _caught_up(sketch: Sketch, graph: Graph, clusters: ClusterSet) -> Loaded:
    wanted, shown = clusters.labels(), graph.labels()
    hidden = np.array(sorted(graph.hidden), np.int64)
    extra = np.setdiff1d(shown, wanted)
    again = np.intersect1d(hidden, wanted)
    missing = np.setdiff1d(wanted, np.concatenate([shown, hidden]))
    graph.restore(again)
    graph.remove(extra)
    held = CenterIndex(Sketched(sketch, graph), clusters.centers_of)
    held.add(missing)
    return Loaded(held, len(extra) + len(again) + len(missing), None)


def _record_bytes(record: IndexRecord) -> bytes:
    fields: dict[str, Any] = {name: getattr(record, name) for name in IndexRecord.__slots__}
    body = json.dumps(fields, sort_keys=True)
    check = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"record": fields, "check": check}).encode()
