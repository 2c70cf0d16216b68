"""Repair: makes a damaged project whole again, without the data of the broken files.

Clusters, and what became of edits, follow from the edits and the history, and the index from the clusters: a
broken file of these costs nothing. A broken file of edits costs the edits in it, one of blocks the answers of
the edits that lead to them, and a broken snapshot file what was committed from it on, unless a later snapshot
lists all of its files. What is left is the repaired snapshot; older ones are no longer kept, for they name
the broken files too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from melo_store.clusters.cluster_set import all_put
from melo_store.commits.commit_delta import CommitDelta, CommitMetadata
from melo_store.commits.recompute import counted, from_scratch
from melo_store.commits.write import write_commit
from melo_store.errors import DamagedProjectError
from melo_store.format import file_io, layout, lock, manifest
from melo_store.format.documents import Head, Pointer, Snapshot
from melo_store.format.segments import Edits, Segment, joined, open_segment
from melo_store.format.tables import edits as edits_table
from melo_store.maintenance import verify
from melo_store.records import JSON, FileEntry, NewEdit, SnapshotInfo, block_id, edit_id, number_of
from melo_store.state import State, read_edit_statuses

_ADVICE = "put the file back from a copy of the project"


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or has done.

    Attributes:
        lost: ids of the edits whose text and keys are gone; their numbers are not given again.
        unanswered: ids of the edits whose blocks are gone; they are reverted.
        lost_blocks: ids of these blocks.
        back_to: number of the older snapshot that the repair goes on from; None where it is the newest.
        edits_after: ids of edits from this number on are gone with the later snapshots; None where none are.
        snapshots: how many snapshots are no longer kept.
        rebuilt: files that are made again from the rest.
    """

    lost: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    lost_blocks: tuple[str, ...] = ()
    back_to: int | None = None
    edits_after: str | None = None
    snapshots: int = 0
    rebuilt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a repair starts from.

    Attributes:
        newest: the snapshot whose files are held against their checksums.
        infos: of the snapshots that can be read, oldest first.
        broken: those of its files that are not what was written, by path.
        stray: whether only older snapshots name broken files.
    """

    head: Head
    newest: Snapshot
    infos: tuple[SnapshotInfo, ...]
    files: tuple[FileEntry, ...]
    broken: dict[str, FileEntry]
    stray: bool
    edits_after: str | None

    def sound(self, role: str) -> list[FileEntry]:
        """The whole files of a role, in the order of what they hold."""
        entries = [entry for entry in self.files if entry.role == role and entry.path not in self.broken]
        return sorted(entries, key=lambda entry: entry.first)

    def is_broken(self, *roles: str) -> bool:
        return any(entry.role in roles for entry in self.broken.values())


def plan(root: Path) -> Repair:
    """What a repair would do.

    Raises:
        DamagedProjectError: what is broken cannot be made again, nor be done without.
    """
    ground = _ground(root)
    return _worked_out(root, ground)[0]


def repair(root: Path, *, versions: Mapping[str, str], command: str | None = None) -> Repair:
    """Commit a snapshot without what is broken, and keep it alone; broken files are left for `gc.collect`.

    Raises:
        DamagedProjectError: as `plan`; nothing is changed.
        ProjectLockedError: another process is writing.
        StorageError: the file system refused; run it again.
    """
    with lock.writing(root, 0.0):
        ground = _ground(root)
        done, change = _worked_out(root, ground)
        if change is not None:
            if done.back_to is not None:
                manifest.write_head(root, ground.head)
            info = ground.newest.info
            detail: dict[str, JSON] = {"lost": [*done.lost], "unanswered": [*done.unanswered]}
            metadata = CommitMetadata("repair", info.recipe, info.seed, versions, command, detail)
            head, _, _ = write_commit(root, ground.head.newest, ground.files, change, metadata)
        if done != Repair():
            _renew_index(root)
        if change is not None:  # last of all: until then a repair that is broken off begins again
            manifest.write_head(root, replace(head, oldest=head.newest.number))
        return done


def _ground(root: Path) -> _Ground:
    try:
        head = manifest.read_head(root)
    except DamagedProjectError as error:
        raise DamagedProjectError(error.what, where=error.where, hint=_ADVICE) from error
    history, findings = verify.readable_history(root, head)
    edits_after = None
    if findings and not any(snapshot.complete for _, snapshot in history):
        head, edits_after = _older(root, head, history)
        history, findings = verify.readable_history(root, head)
    pointer, chain = _chain(root, history)
    files = manifest.all_files(chain)
    every = {entry.path: entry for _, snapshot in history for entry in snapshot.files}
    broken = {
        path: entry
        for path, entry in {**every, **{each.path: each for each in files}}.items()
        if verify.problem_of(root, path, entry.size, entry.sha256) is not None
    }
    here = {entry.path: broken[entry.path] for entry in files if entry.path in broken}
    return _Ground(
        head=replace(head, newest=pointer),
        newest=chain[0],
        infos=tuple(snapshot.info for _, snapshot in reversed(history)),
        files=files,
        broken=here,
        stray=bool(findings) or len(broken) > len(here),
        edits_after=edits_after,
    )


def _older(root: Path, head: Head, history: Sequence[tuple[Pointer, Snapshot]]) -> tuple[Head, str]:
    """The newest snapshot before a broken snapshot file that still can be read with all before it."""
    broken_at = history[-1][0].number - 1 if history else head.newest.number
    for number in range(broken_at - 1, head.oldest - 1, -1):
        path = layout.inside(root, layout.snapshot_name(number))
        try:
            written = file_io.fingerprint(path)
            older = replace(head, newest=Pointer(number, written.size, written.sha256))
            readable, findings = verify.readable_history(root, older)
        except FileNotFoundError:
            continue
        if readable and (not findings or any(snapshot.complete for _, snapshot in readable)):
            return older, edit_id(readable[0][1].info.counts["edits"] + 1)
    raise DamagedProjectError("no snapshot is complete", where=str(root), hint=_ADVICE)


def _chain(root: Path, history: Sequence[tuple[Pointer, Snapshot]]) -> tuple[Pointer, list[Snapshot]]:
    """The newest snapshot and those before it, newest first, back to the first complete one."""
    chain: list[Snapshot] = []
    for _, snapshot in history:
        chain.append(snapshot)
        if snapshot.complete:
            return history[0][0], chain
    raise DamagedProjectError("the first snapshot of its history is missing", where=str(root), hint=_ADVICE)


def _worked_out(root: Path, ground: _Ground) -> tuple[Repair, CommitDelta | None]:
    """What is lost, and the change that does without it; no change where no data file is broken."""
    for entry in ground.broken.values():
        if entry.role == "keymaps":
            raise DamagedProjectError(
                "the key map cannot be rebuilt", where=str(root / entry.path), hint=_ADVICE
            )
    index_files = [finding.file for finding in verify.index_problems(root)]
    back_to = ground.newest.info.number if ground.edits_after is not None else None
    if not ground.broken and not ground.stray and back_to is None:
        return Repair(rebuilt=tuple(index_files)), None
    edits = Edits(ground.newest.key_dim, [_source(root, ground, entry) for entry in _edit_files(ground)])
    lost = _numbers(entry for entry in ground.broken.values() if entry.role == "edits")
    lost_blocks = set(_numbers(entry for entry in ground.broken.values() if entry.role == "blocks"))
    reverted = _reverted(root, ground)
    unanswered = [
        number
        for segment in edits.segments()
        for number in segment.neurons.tolist()
        if int(segment.blocks[number - segment.first]) in lost_blocks and number not in reverted
    ]
    done = Repair(
        lost=tuple(edit_id(number) for number in lost),
        unanswered=tuple(edit_id(number) for number in unanswered),
        lost_blocks=tuple(block_id(number) for number in sorted(lost_blocks)),
        back_to=back_to,
        edits_after=ground.edits_after,
        snapshots=ground.newest.info.number + 1 - ground.head.oldest,
        rebuilt=(
            *sorted(path for path, entry in ground.broken.items() if entry.role in ("clusters", "states")),
            *index_files,
        ),
    )
    return done, _change(root, ground, edits, reverted.union(lost, unanswered))


def _change(root: Path, ground: _Ground, edits: Edits, reverted: set[int]) -> CommitDelta:
    """The whole snapshot without what is broken; files that are sound stay as they are."""
    edit_statuses, clusters = from_scratch(edits, reverted)
    replaced = {entry.path for entry in ground.files if entry.role in ("clusters", "states")}
    blocks = max((entry.first + entry.rows - 1 for entry in ground.sound("blocks")), default=0)
    rewritten = ground.is_broken("edits")
    if rewritten:
        replaced |= {entry.path for entry in ground.files if entry.role == "edits"}
    return CommitDelta(
        parent=ground.newest.info.number,
        dim=ground.newest.key_dim,
        width=ground.newest.token_width,
        segment=joined(list(edits.segments()), root) if rewritten else None,
        delta=all_put(clusters),
        edit_statuses=edit_statuses.rows(),
        rewrites=True,
        replaces=frozenset(replaced | ground.broken.keys()),
        counts=counted(edits, edit_statuses, clusters, blocks),
    )


def _edit_files(ground: _Ground) -> list[FileEntry]:
    return sorted((entry for entry in ground.files if entry.role == "edits"), key=lambda entry: entry.first)


def _source(root: Path, ground: _Ground, entry: FileEntry) -> tuple[int, int, Callable[[], Segment]]:
    broken = entry.path in ground.broken
    opener = (
        partial(_placeholders, root, entry)
        if broken
        else partial(open_segment, root, entry, ground.newest.key_dim, ground.newest.token_width)
    )
    return entry.first, entry.rows, opener


def _placeholders(root: Path, entry: FileEntry) -> Segment:
    """Rows that keep the numbers of lost edits: without text, and never answered."""
    lost = NewEdit(prompt="", target="", status="failed", metadata={"lost": entry.path})
    rows = [edits_table.NumberedEdit(number, lost, None, ()) for number in _numbers([entry])]
    return Segment(edits_table.encode(rows, datetime.now(UTC)), entry.first, root)


def _numbers(entries: Iterable[FileEntry]) -> list[int]:
    return [number for entry in entries for number in range(entry.first, entry.first + entry.rows)]


def _reverted(root: Path, ground: _Ground) -> set[int]:
    """The edits that are reverted: from the states files, or else from the history.

    Raises:
        DamagedProjectError: neither can be read whole.
    """
    if not ground.is_broken("states"):
        return set(read_edit_statuses(root, ground.files).reverted)
    if ground.infos[0].number != 0:
        raise DamagedProjectError(
            "it is unknown which edits are reverted, since the history does not begin at snapshot 0",
            where=str(root / next(p for p, e in ground.broken.items() if e.role == "states")),
            hint=_ADVICE,
        )
    at: dict[int, tuple[set[int], int]] = {}
    reverted: set[int] = set()
    for info in ground.infos:
        count = info.counts["edits"]
        if "to" in info.detail and info.action == "revert":
            then, known = at[int(str(info.detail["to"]))]
            reverted = then.union(range(known + 1, count + 1))
        elif info.action == "revert":
            named = info.detail["reverted"]
            assert isinstance(named, list), "what `Writer.revert` writes"
            reverted = reverted.union(number_of(str(name), "e") for name in named)
        at[info.number] = reverted, count
    return reverted


def _renew_index(root: Path) -> None:
    """Save the index anew, or take it away where none is needed."""
    head = manifest.read_head(root)
    pointer, chain = manifest.find(root, head, None)
    file_io.remove(root / layout.INDEX_RECORD)
    State(root, head, pointer, chain, on_trouble=lambda *_: None).save_index()
