"""Where everything of a project lies. Every path and file name comes from here, and none leaves the project.

manifest.json            the one file that is replaced: format, name, base, newest snapshot
snapshots/000012.json    what snapshot 12 is and which files it adds
edits/000012.arrow       the edits that commit 12 added, with their keys and token vectors
blocks/000012.arrow      their blocks
clusters/000012.arrow    the clusters that commit 12 made, changed or removed
states/000012.arrow      the older edits that commit 12 superseded, reverted or brought back
keymaps/000012.arrow     the key map that commit 12 put in force
index/                   the HNSW cache, derived from the rest
lock, lock.json          the writer's lock and who holds it
evaluation.json          the figures of the last evaluation, for people
"""

from __future__ import annotations

import re
from pathlib import Path

from melo_store.errors import DamagedProjectError

MANIFEST = "manifest.json"
LOCK = "lock"
LOCK_HOLDER = "lock.json"
EVALUATION = "evaluation.json"
INDEX_RECORD = "index/neurons.json"
_OLD_INDEX_RECORD = "index/index.json"  # of formats 1 and 2, which had other graphs
SNAPSHOTS = "snapshots"
INDEX = "index"
ROLES = ("edits", "blocks", "clusters", "states", "keymaps")
FOLDERS = (SNAPSHOTS, *ROLES, INDEX)
TEMPORARY = ".tmp"

_DATA_NAME = re.compile(rf"({'|'.join(ROLES)})/[0-9]{{6,18}}\.arrow", re.ASCII)
_SNAPSHOT_NAME = re.compile(rf"{SNAPSHOTS}/[0-9]{{6,18}}\.json", re.ASCII)
_INDEX_NAME = re.compile(rf"{INDEX}/[0-9]{{6,18}}\.hnsw", re.ASCII)


def data_name(role: str, snapshot: int) -> str:
    """Name of the data file that a commit writes for a role."""
    return f"{role}/{snapshot:06d}.arrow"


def snapshot_name(snapshot: int) -> str:
    return f"{SNAPSHOTS}/{snapshot:06d}.json"


def index_name(snapshot: int) -> str:
    return f"{INDEX}/{snapshot:06d}.hnsw"


def is_data_name(name: str, role: str) -> bool:
    """Whether a name read from a manifest is one that this store could have given for the role."""
    return _DATA_NAME.fullmatch(name) is not None and name.startswith(f"{role}/")


def is_snapshot_name(name: str) -> bool:
    return _SNAPSHOT_NAME.fullmatch(name) is not None


def is_index_name(name: str) -> bool:
    return _INDEX_NAME.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether this store could have given the name to a file in one of the folders."""
    return (
        _DATA_NAME.fullmatch(name) is not None
        or is_snapshot_name(name)
        or is_index_name(name)
        or name in (INDEX_RECORD, _OLD_INDEX_RECORD)
    )


def temporary(path: Path) -> Path:
    """Where new content of a file is written before it takes the file's name."""
    return path.with_name(path.name + TEMPORARY)


def inside(root: Path, name: str) -> Path:
    """The full path of a file of the project, by a name that the store gives.

    Raises:
        DamagedProjectError: the file or its folder is a link, which may lead out of the project.
    """
    path = root / name
    if path.is_symlink() or path.parent.is_symlink():
        raise DamagedProjectError(
            f"{name} is a link, which may lead out of the project",
            where=str(root),
            hint="replace the link by the file",
        )
    return path
