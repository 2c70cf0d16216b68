"""The records of the store's interface: edits, blocks, snapshots and neighbours, all frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from melo_store.errors import BaseMismatchError, UnknownEditError

if TYPE_CHECKING:  # reading a manifest takes these records, and no numpy
    import numpy as np
    from numpy.typing import NDArray

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Vector: TypeAlias = "NDArray[np.float32]"
Matrix: TypeAlias = "NDArray[np.float32] | NDArray[np.float16]"
"""A side of a block's slice for one module."""
Tokens: TypeAlias = "NDArray[np.float16]"
"""Token vectors of a prompt [n, width], n >= 1; the store does not interpret them."""
Status: TypeAlias = Literal["solved", "already_right", "failed", "superseded"]
STATUSES: tuple[str, ...] = get_args(Status)
ROUTING: tuple[str, ...] = ("solved", "already_right")
"""Statuses of edits that become neurons, if they have a key: such a neuron leads to a block, or to the base
model."""
EffectiveStatus: TypeAlias = Literal["live", "superseded", "reverted", "already_right", "failed"]
EFFECTIVE_STATUSES: tuple[str, ...] = get_args(EffectiveStatus)


def edit_id(number: int) -> str:
    """The name of the edit with this running number: ``e000001`` for 1."""
    return f"e{number:06d}"


def block_id(number: int) -> str:
    """The name of the block with this running number: ``b000001`` for 1."""
    return f"b{number:06d}"


def number_of(name: str, letter: Literal["e", "b"]) -> int:
    """The running number in an edit or block name.

    Raises:
        UnknownEditError: the name is not written like one.
    """
    match = re.fullmatch(rf"{letter}([0-9]{{6,18}})", name, re.ASCII)
    if match is None or int(match[1]) == 0:
        kind = "an edit" if letter == "e" else "a block"
        raise UnknownEditError(f"'{name}' is not an id of {kind}", hint=f"ids look like {letter}000001")
    return int(match[1])


@dataclass(frozen=True, slots=True, eq=False)
class NewEdit:
    """An edit as a caller hands it to a commit.

    An edit whose status is ``solved`` becomes a neuron; it needs ``key`` and ``block``. One that is
    ``already_right`` becomes a neuron that leads to the base where it has a ``key``: then no other edit takes
    its prompt.

    Attributes:
        label: target token ids, all of them (classification: the class id alone).
        key: float32 [d], what the index finds the neuron by.
        tokens: token vectors of the prompt, float16 [n, width], beside the key; all edits have one width.
        block: the name under which the caller hands the block to `Writer.stage`.
        radius: the radius that the neuron asks for in the clusters, in units of the key; None: it stands in
            no cluster.
        metrics: figures of the edit's own training; numbers JSON has no word for are kept as null.
    """

    prompt: str
    target: str
    rephrases: tuple[str, ...] = ()
    locality: tuple[tuple[str, str | None], ...] = ()
    subject: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    status: Status = "solved"
    label: tuple[int, ...] = ()
    key: Vector | None = None
    tokens: Tokens | None = None
    block: str | None = None
    radius: float | None = None
    metrics: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class EditRecord:
    """One row of the edits table; immutable once committed.

    Attributes:
        locality: unrelated prompts with their true answers, where known.
        status: as it was committed; what became of the edit later is in `EditView.status`.
        key: float32 [d], a read-only view of the memory-mapped file.
        tokens: float16 [n, width], a read-only view too.
        created_at: UTC.
        supersedes: ids of the older edits that this one replaced when it was committed.
    """

    edit_id: str
    prompt: str
    target: str
    rephrases: tuple[str, ...]
    locality: tuple[tuple[str, str | None], ...]
    subject: str | None
    metadata: dict[str, JSON]
    status: Status
    label: tuple[int, ...]
    key: Vector | None
    tokens: Tokens | None
    block: str | None
    radius: float | None
    metrics: dict[str, JSON]
    created_at: datetime
    supersedes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster of an edit.

    Attributes:
        cluster: its number, which is the number of its oldest member.
        radius: how far the cluster's ball reaches from the center (L2).
        center_distance: from the edit's key to the center (L2).
        members: ids of the edits in it, oldest first.
    """

    cluster: int
    radius: float
    center_distance: float
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EditView:
    """An edit as one snapshot sees it.

    Attributes:
        status: ``live`` (its block answers), ``superseded``, ``reverted``, ``already_right`` or ``failed``.
        superseded_by: id of the newer edit that superseded it; None if there is none.
        cluster: where it stands in the clusters; None where it does not.
    """

    record: EditRecord
    status: EffectiveStatus
    superseded_by: str | None
    cluster: ClusterInfo | None

    @property
    def edit_id(self) -> str:
        return self.record.edit_id

    @property
    def prompt(self) -> str:
        return self.record.prompt

    @property
    def target(self) -> str:
        return self.record.target

    @property
    def block(self) -> str | None:
        return self.record.block


@dataclass(frozen=True, slots=True, eq=False)
class LoraSlice:
    """The part of a block that one target module gets: ``scale * B @ A``.

    Attributes:
        A: float32 or float16 [rank, in]; float32 if it has a seed.
        B: float32 or float16 [out, rank].
        scale: alpha / rank.
        seed: the seed that names `A` (`projection.random_projection`), which is then not stored; None if `A`
            was trained.
        in_int8: whether the matrices are stored in int8. They are float32 here, with the values that int8
            keeps (`quantization.rounded`).
    """

    A: Matrix
    B: Matrix
    scale: float
    seed: int | None = None
    in_int8: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers that are stored."""
        stored = [self.B] if self.seed is not None else [self.A, self.B]
        if self.in_int8:
            return sum(matrix.size + 4 * self.A.shape[0] for matrix in stored)
        return sum(matrix.nbytes for matrix in stored)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What one batch of edits trained: a slice for each target module, by module name."""

    block_id: str
    slices: Mapping[str, LoraSlice]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.slices.values())


@dataclass(frozen=True, slots=True, eq=False)
class KeyMap:
    """How a pooled hidden state becomes a key, as calibration learned it; the store does not interpret it.

    Attributes:
        settings: JSON values by name.
        arrays: float32 arrays of any shape by name.
    """

    settings: Mapping[str, JSON]
    arrays: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class BaseReference:
    """The base model that a project edits, held by reference.

    Attributes:
        name_or_path: hub id or folder.
        revision: of the hub repository, where one was asked for.
        fingerprint: sha256 by part, such as ``{"config": ..., "weights": ...}``.
    """

    name_or_path: str
    revision: str | None
    fingerprint: Mapping[str, str]

    def require_same(self, other: BaseReference) -> None:
        """Refuse another base model than this one; a folder that only moved is the same base.

        Compared are the parts that both have: an older project has fewer, and so has a base seen from its
        files alone.

        Raises:
            BaseMismatchError: naming every part that differs.
        """
        parts = sorted(self.fingerprint.keys() & other.fingerprint.keys())
        different = [part for part in parts if self.fingerprint[part] != other.fingerprint[part]]
        if not parts and (self.name_or_path, self.revision) != (other.name_or_path, other.revision):
            different = ["name or revision"]
        if different:
            raise BaseMismatchError(
                f"the project was made on {self.describe()}, but {other.describe()} differs in "
                + ", ".join(different),
                hint="use the base model that the project was made on",
            )

    def describe(self) -> str:
        """Name and revision in a few words."""
        return f"{self.name_or_path}@{self.revision}" if self.revision else self.name_or_path


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The data of one snapshot that its snapshot file holds.

    Attributes:
        number: running number; 0 is the empty project.
        parent: the snapshot it was made from; None for 0.
        created_at: UTC.
        action: ``create``, ``edit``, ``revert``, ``calibrate`` or what the committer named it.
        recipe: the resolved recipe in force.
        versions: library versions, by library.
        command: the command line that made it, where given.
        counts: ``edits`` (all rows), each of `EFFECTIVE_STATUSES`, ``blocks`` and ``clusters``.
        detail: whatever the committer wrote beside it.
    """

    number: int
    parent: int | None
    created_at: datetime
    action: str
    recipe: Mapping[str, JSON]
    seed: int
    versions: Mapping[str, str]
    command: str | None
    counts: Mapping[str, int]
    detail: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A live neuron near a key.

    Attributes:
        block: None where it leads to the base.
        distance: L2 (not squared) from the key to the neuron.
        cluster: number of the cluster that it stands in; None, as are the next two, where it stands in none.
        radius: the cluster's.
        center_distance: L2 from the key to the cluster's center; the cluster's ball holds the key where that
            is at most `radius`.
    """

    edit_id: str
    block: str | None
    distance: float
    cluster: int | None
    radius: float | None
    center_distance: float | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One immutable file of a project, as a manifest lists it.

    Attributes:
        path: relative to the project, with forward slashes.
        size: bytes.
        sha256: hex digest of the whole file.
        role: ``edits``, ``blocks``, ``clusters``, ``states``, ``keymaps`` or ``snapshot``.
        first: number of the first edit or block in it; 0 for other roles.
        rows: how many edits, blocks or rows it holds.
    """

    path: str
    size: int
    sha256: str
    role: str
    first: int
    rows: int
