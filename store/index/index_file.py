"""The index on the disk: a cache, checked before it is loaded, built again when it fails.

``index/neurons.json`` names the file of the HNSW graph, its checksum, the snapshot that it was saved at and
the key map that its keys are from. A graph serves every snapshot of its history under that key map: neurons
that it lacks stand beside it in a matrix, and those that it has too many are marked as deleted. So it is
saved when a writer ends and `neuron_index.GRAPH_FROM` edits have come since, and no commit waits for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melo_store.format import file_io, layout
from melo_store.index.neuron_index import Graph

MISSING = "the index file is missing"

_MAX_RECORD = 1 << 26


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """The content of ``index/neurons.json``.

    Attributes:
        dim: size of the keys.
        keys: what says which keys they are: the file of the key map in force, empty where there is none.
        number: of the snapshot that the graph was saved at.
        snapshot: sha256 of its file.
        edits: how many edits it had.
        marked: neurons marked as deleted.
        strays: those of them that searches do not meet; None in a record of an older melo, which set none
            aside.
    """

    path: str
    size: int
    sha256: str
    dim: int
    keys: str
    number: int
    snapshot: str
    edits: int
    marked: tuple[int, ...]
    strays: tuple[int, ...] | None = None


def load(
    root: Path, dim: int, keys: str, snapshot_sha256: Callable[[int], str | None]
) -> tuple[Graph | None, str | None]:
    """The saved graph, and why it cannot be used; neither where it is to be built anew without a word, since
    it holds other keys, as after a re-keying, or an older melo made it.

    Args:
        keys: see `IndexRecord.keys`.
        snapshot_sha256: checksum of the snapshot file of a number, in this project's history.
    """
    record = read_record(root)
    for _ in range(2):
        if record is None:
            return None, "the index file is damaged" if (root / layout.INDEX_RECORD).is_file() else MISSING
        try:
            return _read_graph(root, record, dim, keys, snapshot_sha256), None
        except _UnusableError as error:
            newer = read_record(root)  # a writer may have replaced the file in this moment
            if newer == record:
                return None, str(error)
            record = newer
    return None, "the index file changed while it was read"


def save(root: Path, graph: Graph, keys: str, number: int, snapshot_sha256: str, edits: int) -> None:
    """Save the graph of a snapshot; the caller holds the writer's lock.

    Raises:
        StorageError: the file system refused; what was saved before still stands.
    """
    name = layout.index_name(number)
    target = layout.inside(root, name)
    file_io.make_folder(target.parent)
    before = read_record(root)
    scratch = layout.temporary(target)
    with file_io.refusals(target):
        size = graph.save(scratch)
        file_io.require_size(scratch, size)
    file_io.sync_file(scratch)
    written = file_io.fingerprint(scratch)
    file_io.rename(scratch, target)
    record = IndexRecord(
        path=name,
        size=size,
        sha256=written.sha256,
        dim=graph.dim,
        keys=keys,
        number=number,
        snapshot=snapshot_sha256,
        edits=edits,
        marked=tuple(graph.marked.tolist()),
        strays=tuple(graph.strays.tolist()),
    )
    where = root / layout.INDEX_RECORD
    file_io.replace_file(where, _record_bytes(record), layout.temporary(where))
    if before is not None and before.path != name:
        file_io.remove(root / before.path)


def read_record(root: Path) -> IndexRecord | None:
    """What ``index/neurons.json`` says; None where it is missing or broken."""
    path = root / layout.INDEX_RECORD
    if not path.is_file():
        return None
    with file_io.refusals(path), path.open("rb") as file:
        content = file.read(_MAX_RECORD)
    try:
        document = json.loads(content)
        body = json.dumps(document["record"], sort_keys=True)
        if hashlib.sha256(body.encode()).hexdigest() != document["check"]:
            return None
        lists = {
            name: tuple(document["record"][name])
            for name in ("marked", "strays")
            if name in document["record"]
        }
        record = IndexRecord(**{**document["record"], **lists})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: IndexRecord) -> bool:
    """Whether every field has its type and range."""
    whole = (record.size, record.dim, record.number, record.edits, *record.marked, *(record.strays or ()))
    texts = (record.path, record.sha256, record.keys, record.snapshot)
    return (
        all(isinstance(value, int) and 0 <= value < 1 << 62 for value in whole)
        and all(isinstance(value, str) for value in texts)
        and layout.is_index_name(record.path)
    )


class _UnusableError(Exception):
    """Why a saved graph cannot be used."""


def _read_graph(
    root: Path, record: IndexRecord, dim: int, keys: str, snapshot_sha256: Callable[[int], str | None]
) -> Graph | None:
    if snapshot_sha256(record.number) != record.snapshot:
        raise _UnusableError("the index file belongs to another history of the project")
    if (record.dim, record.keys) != (dim, keys) or record.strays is None:
        return None
    path = layout.inside(root, record.path)
    try:
        written = file_io.fingerprint(path)
        if (written.size, written.sha256) != (record.size, record.sha256):
            raise _UnusableError("the index file is damaged")
        marked, strays = (np.array(some, np.int64) for some in (record.marked, record.strays))
        return Graph.load(path, dim, marked, strays)
    except FileNotFoundError as error:
        raise _UnusableError(MISSING) from error
    except RuntimeError as error:
        raise _UnusableError("the index file is damaged") from error


def _record_bytes(record: IndexRecord) -> bytes:
    fields: dict[str, Any] = {name: getattr(record, name) for name in IndexRecord.__slots__}
    body = json.dumps(fields, sort_keys=True)
    check = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"record": fields, "check": check}).encode()
