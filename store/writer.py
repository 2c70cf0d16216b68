"""The writer of a project: commits edits, reverts them, gives neurons new keys, compacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from melo_store import validation
from melo_store.clusters.cluster_set import ClusterSet, changed
from melo_store.commits import recompute
from melo_store.commits.commit_delta import CommitDelta, CommitMetadata, counts_after, metadata_like
from melo_store.commits.staging import Staged, stage
from melo_store.commits.supersede import Prompts
from melo_store.commits.write import write_commit
from melo_store.edit_status import EditStatusRow
from melo_store.format import lock, manifest
from melo_store.format.documents import Head, Snapshot
from melo_store.project import Project
from melo_store.records import (
    JSON,
    FileEntry,
    KeyMap,
    LoraSlice,
    NewEdit,
    SnapshotInfo,
    Tokens,
    Vector,
    edit_id,
)
from melo_store.state import State


@contextmanager
def open_writer(project: Project, timeout: float = 0.0) -> Iterator[Writer]:
    """Hold the writer's lock of a project; the writer begins at the newest snapshot, whatever this one is.

    Args:
        timeout: seconds to wait for another writer.

    Raises:
        ProjectLockedError: another process is writing.
        StorageError: the file system refused.
    """
    with lock.writing(project.path, timeout):
        writer = Writer(State.load(project.path))
        try:
            yield writer
        finally:
            writer.finish()


class Writer:
    """The one writer of a project; made by `open_writer`, which holds the lock.

    Attributes:
        state: the newest snapshot; each commit replaces it.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        state.writing = True
        self._prompts: Prompts | None = None

    @property
    def project(self) -> Project:
        """The newest snapshot, as a project's users see it."""
        return Project(self.state)

    def stage(
        self, edits: Sequence[NewEdit], blocks: Mapping[str, Mapping[str, LoraSlice]] | None = None
    ) -> Staged:
        """Apply edits over the newest snapshot, in memory only; edits of one batch see each other.

        Staging again starts from the newest snapshot again.

        Args:
            blocks: slices by module name, by the name that `NewEdit.block` uses. A block that no solved edit
                leads to is not kept, and an edit that did not take then records none.

        Raises:
            InvalidEditError: an edit or a block lacks something, or contradicts itself.
            KeyShapeError: a key or a token vector does not fit.
        """
        return stage(lambda: self.state, self._prompt_index, self.commit, edits, blocks or {})

    def revert(
        self,
        edit_ids: Iterable[str],
        *,
        versions: Mapping[str, str],
        command: str | None = None,
        detail: Mapping[str, JSON] | None = None,
    ) -> SnapshotInfo:
        """Revert edits, in a new snapshot: routes are then as in a project that never had them.

        An older edit that one of them replaced answers again, unless another one replaces it. Edits that are
        reverted already stay so; where nothing is left to do, no snapshot is made.

        Raises:
            UnknownEditError: there is no such edit; nothing is reverted.
            StorageError: the file system refused; the project is as it was.
        """
        state = self.state
        asked = {validation.known_edit(state, name) for name in edit_ids}
        gone = asked - state.edit_statuses.reverted
        if not gone:
            return state.snapshot.info
        edit_statuses: dict[int, EditStatusRow] = {number: (number, True, None) for number in gone}
        back = []
        for old in sorted(
            n for n, by in state.edit_statuses.superseded.items() if by in gone and n not in gone
        ):
            prompt = state.edits.prompt(old)
            by = self._prompt_index().replaced_again(old, prompt, state.edit_statuses.reverted | gone)
            edit_statuses[old] = (old, False, by)
            back += [state.edits.neuron(old)] if by is None and state.edits.is_clustered(old) else []
        change = self._of_statuses([edit_statuses[number] for number in sorted(edit_statuses)])
        before = state.clusters
        if before is not None:
            after = changed(before, state.edits, gone, back, [])
            change = replace(change, clusters=after, delta=after.since(before))
        ids: JSON = [edit_id(number) for number in sorted(gone)]
        said = {**(detail or {}), "reverted": ids}
        return self.commit(change, metadata_like(state.snapshot.info, "revert", versions, command, said))

    def revert_to(
        self,
        snapshot: int,
        *,
        versions: Mapping[str, str],
        command: str | None = None,
        detail: Mapping[str, JSON] | None = None,
    ) -> SnapshotInfo:
        """Make an older snapshot's live edits live again, in a new snapshot; later edits are reverted.

        A key map that was put in force since then stays so: the edits answer by their present keys.

        Raises:
            UnknownEditError: there is no such snapshot.
            StorageError: the file system refused; the project is as it was.
        """
        state = self.state
        edit_statuses, then = recompute.as_it_was(state, State.load(state.root, snapshot))
        numbers = range(1, state.edits.count + 1)
        changed = [
            edit_statuses.row(number)
            for number in numbers
            if edit_statuses.row(number) != state.edit_statuses.row(number)
        ]
        if not changed:
            return state.snapshot.info
        change = self._of_statuses(changed)
        if state.clusters is not None:
            after = then if then is not None else ClusterSet(state.clusters.dim, state.edits)
            change = replace(change, clusters=after, delta=after.since(state.clusters))
        said = {**(detail or {}), "to": snapshot}
        return self.commit(change, metadata_like(state.snapshot.info, "revert", versions, command, said))

    def rekey(
        self,
        key_map: KeyMap,
        keys: Mapping[str, Vector],
        tokens: Mapping[str, Tokens],
        radii: Mapping[str, float | None],
        *,
        recipe: Mapping[str, JSON],
        seed: int,
        versions: Mapping[str, str],
        command: str | None = None,
        detail: Mapping[str, JSON] | None = None,
        action: str = "calibrate",
    ) -> SnapshotInfo:
        """Put a key map in force, in a new snapshot, and give every neuron the key that it makes.

        What replaces what, and the clusters, are worked out again, as if the edits had been made with the new
        keys. Older snapshots keep their key maps, keys and token vectors. The key and the token vectors of an
        edit that never was a neuron are dropped.

        Args:
            keys: float32 [d] by edit id, for every edit that was committed as a neuron, superseded and
                reverted ones too; d may differ from the old one. Empty before the first edit.
            tokens: token vectors, float16 [n, width], for some of these edits; the others have none then.
            radii: the radius asked for, for every one of them; None for no cluster.

        Raises:
            InvalidEditError: a key or radius is missing, something is too many, or the key map holds what it
                must not.
            KeyShapeError: a key or a token vector has another size than the others, or is not finite.
            DamagedProjectError: a file of edits is broken.
            StorageError: the file system refused; the project is as it was.
        """
        change = recompute.rekeyed(self.state, key_map, keys, tokens, radii)
        return self.commit(change, CommitMetadata(action, recipe, seed, versions, command, detail or {}))

    def commit(self, change: CommitDelta, metadata: CommitMetadata) -> SnapshotInfo:
        """Write a change as the next snapshot; see `Staged.commit`."""
        state = self.state
        if not change.rewrites:
            change = replace(change, counts=counts_after(state, change))
        newest, snapshot, added = write_commit(state.root, state.pointer, state.files, change, metadata)
        self._take_over(change, newest, snapshot, added)
        return snapshot.info

    def finish(self) -> None:
        """Save the index if many edits are new to it; called when the writer's block ends."""
        self.state.keep_index()
        self.state.writing = False

    def keep_from(self, oldest: int) -> None:
        """Forget the snapshots before the one of this number; their files stay.

        Raises:
            StorageError: the file system refused.
        """
        head = replace(self.state.head, oldest=oldest)
        manifest.write_head(self.state.root, head)
        self.state = self.state.with_head(head)

    def _take_over(
        self, change: CommitDelta, head: Head, snapshot: Snapshot, added: Sequence[FileEntry]
    ) -> None:
        """Bring what is in memory to the snapshot that was just committed."""
        if change.rewrites:
            self.state = self.state.rewritten(head, snapshot)
        else:
            self.state = self.state.followed_by(head, snapshot, added, change.clusters)
            if self._prompts is not None and change.segment is not None:
                self._prompts.add(change.segment)

    def _prompt_index(self) -> Prompts:
        if self._prompts is None:
            self._prompts = Prompts(self.state.edits)
        return self._prompts

    def _of_statuses(self, edit_statuses: Sequence[EditStatusRow]) -> CommitDelta:
        """A change of nothing but what became of edits."""
        state = self.state
        return CommitDelta(
            state.pointer.number,
            state.snapshot.key_dim,
            state.snapshot.token_width,
            edit_statuses=edit_statuses,
        )
