"""Projects of format 1 open, answer and take edits; migrating them changes nothing but the format."""

from __future__ import annotations

import json

import numpy as np
import pytest

from store.errors import DamagedProjectError, ProjectLockedError
from store.gc import collect
from store.migrate import migrate
from store.project import Project
from store.records import KeyMap
from store.verify import verify


def content(path):
    snapshots = [Project.open(path, at=at) for at in range(5)]
    views = [view for project in snapshots for view in project.edits()]
    keys = np.stack([view.record.key for view in views if view.record.key is not None])
    return (
        [(v.edit_id, v.prompt, v.target, v.status, v.superseded_by, v.cluster, v.block) for v in views],
        [project.nearest(keys) for project in snapshots],
        [project.info for project in snapshots],
        [part.A.tobytes() for at in (1, 2, 3) for part in snapshots[4].block(f"b{at:06d}").slices.values()],
    )


def test_a_project_of_format_1_reads_as_it_was_written(format1):
    assert verify(format1.path) == []
    statuses = list(format1.statuses().values())
    assert statuses == ["superseded", "live", "already_right", "live", "failed", "reverted", "live"]
    assert format1.edit("e000001").superseded_by == "e000004"
    assert format1.edit("e000004").record.metadata == {"source": "Hope"}
    assert format1.key_map is None
    assert [info.action for info in format1.history()] == ["create", "edit", "edit", "edit", "revert"]
    key = format1.edit("e000007").record.key
    assert make.lookup(format1, key[None])[0].fired.block == "b000003"


def test_a_commit_leaves_the_format_so_that_the_older_melo_still_reads_it(format1, make):
    key = np.float32([9, 9, 9, 9])
    make.commit(format1, [make.edit("new", key=key)])
    collect(format1.path, versions={})
    document = json.loads((format1.path / "manifest.json").read_text())
    assert (document["format"], document["needs"]) == (1, "0.1.0")
    roles = {entry.role for entry in Project.open(format1.path).files()}
    assert roles == {"snapshot", "edits", "blocks", "clusters", "states"}


def test_migrating_changes_nothing_but_the_format(format1, make):
    before = content(format1.path)
    assert migrate(format1.path) == (1, 2)
    assert content(format1.path) == before
    assert verify(format1.path) == []
    document = json.loads((format1.path / "manifest.json").read_text())
    assert (document["format"], document["needs"]) == (2, "0.2.0")
    assert migrate(format1.path) == (2, 2)
    with Project.open(format1.path).writer() as writer:
        keys = {
            view.edit_id: make.key()[:2] for view in writer.project.edits() if view.record.status == "solved"
        }
        writer.rekey(KeyMap({}, {}), keys, dict.fromkeys(keys, 1.0), recipe={}, seed=0, versions={})
    assert Project.open(format1.path).key_dim == 2


def test_a_damaged_project_is_not_migrated(format1):
    path = format1.path / "edits/000002.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    manifest = (format1.path / "manifest.json").read_bytes()
    with pytest.raises(DamagedProjectError, match=r"edits/000002\.arrow: the file has .*; run 'melo verify'"):
        migrate(format1.path)
    assert (format1.path / "manifest.json").read_bytes() == manifest


def test_a_project_that_is_being_written_is_not_migrated(format1):
    with format1.writer(), pytest.raises(ProjectLockedError):
        migrate(format1.path)
