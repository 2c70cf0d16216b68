"""Projects of older formats open and answer as they were; a commit or `migrate` brings them up to date."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from melo_store.errors import DamagedProjectError, FormatVersionError, ProjectLockedError
from melo_store.format import documents
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.migrate import migrate
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.writer import open_writer

SNAPSHOTS = {"format1": 5, "format2": 8, "format3": 5}
ROUTES = Path(__file__).parent / "fixtures/format2_routes.json"


@pytest.fixture(params=SNAPSHOTS)
def older(request):
    """A copy of a project of each older format."""
    return request.getfixturevalue(request.param)


def content(path, snapshots):
    projects = [Project.open(path, at=at) for at in range(snapshots)]
    views = [view for project in projects for view in project.edits()]
    newest = projects[-1]
    keys = [
        [view.record.key for view in project.edits() if view.record.key is not None] for project in projects
    ]
    return (
        [(v.edit_id, v.prompt, v.target, v.status, v.superseded_by, v.cluster, v.block) for v in views],
        [project.nearest(np.stack(some)) for project, some in zip(projects, keys, strict=True) if some],
        [project.info for project in projects],
        [part.A.tobytes() for name in newest.block_ids() for part in newest.block(name).slices.values()],
        [
            [None if each is None else each.tobytes() for each in project.tokens(project.statuses())]
            for project in projects
        ],
    )


def written(path):
    document = json.loads((path / "manifest.json").read_text())
    return document["format"], document["needs"]


def test_a_project_of_format_1_reads_as_it_was_written(format1, make):
    assert verify(format1.path) == []
    statuses = list(format1.statuses().values())
    assert statuses == ["superseded", "live", "already_right", "live", "failed", "reverted", "live"]
    assert format1.edit("e000001").superseded_by == "e000004"
    assert format1.edit("e000004").record.metadata == {"source": "Hope"}
    assert format1.key_map is None
    assert [info.action for info in format1.history()] == ["create", "edit", "edit", "edit", "revert"]
    key = format1.edit("e000007").record.key
    assert make.lookup(format1, key[None])[0].fired.block == "b000003"
    assert format1.tokens(format1.statuses()) == [None] * 7


def test_a_project_of_format_2_reads_as_it_was_written(format2):
    assert verify(format2.path) == []
    assert format2.edit_counts == {
        "live": 11,
        "superseded": 2,
        "reverted": 1,
        "already_right": 2,
        "failed": 1,
    }
    assert format2.edit("e000014").superseded_by == "e000015", "for its key alone, as melo 0.2.0 saw it"
    assert format2.key_map.settings == {"size": 6}
    assert format2.edit("e000008").cluster.members == ("e000007", "e000008", "e000009")
    assert format2.tokens(format2.statuses()) == [None] * 17


def test_a_project_of_format_3_reads_as_it_was_written(format3, make):
    assert verify(format3.path) == []
    assert format3.edit_counts == {
        "live": 3,
        "superseded": 1,
        "reverted": 1,
        "already_right": 1,
        "failed": 1,
    }
    assert format3.edit("e000001").superseded_by == "e000003"
    assert format3.tokens(["e000003"])[0].shape == (3, 5)
    for name, rank in (("b000001", 2), ("b000002", 2), ("b000003", 4)):
        part = format3.block(name).slices["encoder.wo"]
        assert (part.A.shape, part.B.shape, part.A.dtype, part.seed) == (
            (rank, 8),
            (4, rank),
            "float32",
            None,
        )
        assert part.A.any() and part.B.any()


def test_the_paper_s_rule_fires_what_melo_0_2_0_fired(format2, make):
    """`fixtures/format2_routes.json` is what its `lookup` gave, of every snapshot."""
    recorded = json.loads(ROUTES.read_text())
    assert list(recorded) == [str(at) for at in range(1, 8)]
    fired = 0
    for at, asked in recorded.items():
        routes = make.lookup(Project.open(format2.path, at=int(at)), np.float32(asked["keys"]))
        for route, expected in zip(routes, asked["routes"], strict=True):
            for near, then in zip((route.held, route.nearest), expected, strict=True):
                assert (near is None) == (then is None)
                if near is not None:
                    name, block, cluster, distance, radius, center_distance = then
                    assert (near.edit_id, near.block, near.cluster) == (name, block, cluster)
                    assert (near.distance, near.radius, near.center_distance) == pytest.approx(
                        (distance, radius, center_distance), abs=1e-9
                    )
            fired += route.fired is not None
    assert fired > 100


def test_a_commit_makes_it_the_present_format(older, make, monkeypatch):
    """An older melo refuses it from then on; until then it has all of the older one."""
    before = content(older.path, older.snapshot + 1)
    key = np.zeros(older.key_dim, np.float32) + 9
    blocks = {"new": older.block("b000001").slices}
    make.commit(older, [make.edit("new", key=key, radius=None)], blocks)
    assert written(older.path) == (4, "0.4.0")
    assert content(older.path, older.snapshot + 1) == before
    again = Project.open(older.path)
    ((near,),) = again.nearest(key[None], 1)
    assert (near.cluster, near.distance) == (None, 0.0)
    has_tokens = [each is not None for each in again.tokens(["e000001"])]
    assert has_tokens == [older.path.name == "format3"]
    assert again.tokens([near.edit_id])[0].shape == (3, 5)
    assert verify(older.path) == []
    collect(older.path, versions={})
    assert verify(older.path) == []
    for known in (1, 2, 3):
        monkeypatch.setattr(documents, "FORMAT", known)
        with pytest.raises(
            FormatVersionError, match=rf"format 4.*up to {known}; install melo 0\.4\.0 or newer"
        ):
            Project.open(older.path)


def test_migrating_changes_nothing_but_the_format(older):
    snapshots = older.snapshot + 1
    was, _ = written(older.path)
    before = content(older.path, snapshots)
    assert migrate(older.path) == (was, 4)
    assert content(older.path, snapshots) == before
    assert verify(older.path) == []
    assert written(older.path) == (4, "0.4.0")
    assert migrate(older.path) == (4, 4)


@pytest.mark.parametrize("migrated", [True, False])
def test_new_keys_for_it(older, make, migrated):
    if migrated:
        migrate(older.path)
    before = Project.open(older.path)
    neurons = [v.edit_id for v in before.edits() if v.record.key is not None and v.record.status != "failed"]
    keys = {name: make.key()[:2] for name in neurons}
    tokens = {name: make.tokens() for name in neurons}
    with open_writer(before) as writer:
        radii = dict.fromkeys(keys, None)
        writer.rekey(KeyMap({}, {}), keys, tokens, radii, recipe={}, seed=0, versions={})
    after = Project.open(older.path)
    assert (after.key_dim, after.info.counts["clusters"]) == (2, 0)
    assert [each is not None for each in after.tokens(after.statuses())] == [
        n in keys for n in after.statuses()
    ]
    statuses = {
        name: status for name, status in after.statuses().items() if status != before.edit(name).status
    }
    assert statuses == ({"e000014": "live"} if older.name == "format2" else {}), (
        "what was superseded for its key alone lives again"
    )
    assert verify(older.path) == []


def test_undoing_what_superseded_for_a_key_alone_brings_the_older_back(format2, make):
    with open_writer(format2) as writer:
        writer.revert(["e000015"], versions=make.versions)
        assert writer.project.edit("e000014").status == "live"
    assert verify(format2.path) == []


def test_the_index_of_an_older_format_is_garbage(format2, make, monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 6)
    old = {path.relative_to(format2.path).as_posix() for path in (format2.path / "index").iterdir()}
    assert old == {"index/index.json", "index/000007.hnsw"}
    edits = [make.edit(f"new {at}", key=np.zeros(6, np.float32) + at) for at in range(6)]
    make.commit(format2, edits, {"new": format2.block("b000001").slices})
    collected = collect(format2.path, versions={})
    assert {each.path for each in collected.garbage} == old
    assert {path.name for path in (format2.path / "index").iterdir()} == {"neurons.json", "000008.hnsw"}
    assert verify(format2.path) == []


def test_a_damaged_project_is_not_migrated(older):
    path = older.path / "edits/000002.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    manifest = (older.path / "manifest.json").read_bytes()
    with pytest.raises(DamagedProjectError, match=r"edits/000002\.arrow: the file has .*; run 'melo verify'"):
        migrate(older.path)
    assert (older.path / "manifest.json").read_bytes() == manifest


def test_a_project_that_is_being_written_is_not_migrated(older):
    with open_writer(older), pytest.raises(ProjectLockedError):
        migrate(older.path)
