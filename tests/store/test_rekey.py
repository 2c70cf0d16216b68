"""Key maps: what calibration learnt is kept, and every neuron gets the key that it makes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from melo_store.errors import (
    DamagedProjectError,
    InvalidEditError,
    KeyShapeError,
    StoreWarning,
)
from melo_store.index import neuron_index
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap, NewEdit
from melo_store.writer import open_writer

KEY_MAP = KeyMap(
    {"pooling": "learned", "seed": 3, "nested": {"steps": [1, 2]}},
    {
        "W": np.arange(12, dtype=np.float32).reshape(3, 4),
        "w": np.float32([0.5]),
        "s": np.array(2, np.float32),
    },
)


def new_keys(project, dim, random):
    names = [view.edit_id for view in project.edits() if view.record.status == "solved"]
    return {name: (random.normal(size=dim) * 10).astype(np.float32) for name in names}


def rekey(writer, keys, make, key_map=KEY_MAP, radius=1.5, tokens=None, **changes):
    given = {"recipe": {"name": "calibrated"}, "seed": 1, "versions": make.versions}
    return writer.rekey(key_map, keys, tokens or {}, dict.fromkeys(keys, radius), **{**given, **changes})


@pytest.fixture
def edited(project, make, quick_disk):
    """Three commits: superseded, failed, already right and reverted edits among them."""
    with open_writer(project) as writer:
        make.commit_with(writer, [make.edit(f"q{at}", label=(at,), radius=4.0) for at in range(6)])
        others = [
            make.edit("q2", label=(9,)),
            make.edit("failed", status="failed"),
            make.edit("right", status="already_right", key=None, radius=None, block=None),
        ]
        make.commit_with(writer, others)
        writer.revert(["e000004"], versions=make.versions)
    return Project.open(project.path)


def test_a_key_map_comes_back_as_it_was_handed_in(project, make):
    assert project.key_map is None
    with open_writer(project) as writer:
        info = rekey(writer, {}, make, command="melo calibrate", detail={"pairs": 40})
        assert writer.project.key_map.settings == KEY_MAP.settings
    again = Project.open(project.path)
    assert (info.number, info.action, info.command) == (1, "calibrate", "melo calibrate")
    assert (again.recipe, again.info.detail) == ({"name": "calibrated"}, {"pairs": 40})
    assert again.key_map.settings == KEY_MAP.settings
    assert again.key_map.arrays.keys() == KEY_MAP.arrays.keys()
    for name, array in KEY_MAP.arrays.items():
        stored = again.key_map.arrays[name]
        assert stored.dtype == np.float32 and stored.shape == array.shape and np.array_equal(stored, array)
        assert not stored.flags.writeable and not stored.flags.owndata
    assert again.key_dim is None
    make.commit(project, make.edits(2))
    assert Project.open(project.path).key_map.settings == KEY_MAP.settings


def test_every_neuron_gets_its_new_key_and_size(edited, make):
    before = edited
    keys = new_keys(before, 3, make.random)
    with open_writer(edited) as writer:
        info = rekey(writer, keys, make)
        inside = writer.project
        assert inside.key_dim == 3
        make.commit_with(writer, [make.edit("later", key=np.float32([1, 2, 3]), label=(77,))])
    after = Project.open(edited.path, at=info.number)
    assert info.counts == {**before.info.counts, "clusters": info.counts["clusters"]}
    for old, new in zip(before.edits(), after.edits(), strict=True):
        assert (old.status, old.superseded_by) == (new.status, new.superseded_by)
        for name in ("prompt", "target", "label", "block", "metrics", "metadata", "created_at", "supersedes"):
            assert getattr(old.record, name) == getattr(new.record, name)
        if new.record.status == "solved":
            assert np.array_equal(new.record.key, keys[new.edit_id])
            assert new.record.radius == 1.5
        else:
            assert new.record.key is None and new.record.radius == old.record.radius
    live = [view.edit_id for view in after.edits() if view.status == "live"]
    routes = make.lookup(after, np.stack([keys[name] for name in live]))
    assert [route.fired.edit_id for route in routes] == live
    assert [route.fired.block for route in routes] == [after.edit(name).block for name in live]
    assert verify(edited.path) == []
    newest = Project.open(edited.path)
    assert make.lookup(newest, np.float32([[1, 2, 3]]))[0].fired.edit_id == "e000010"


def test_older_snapshots_keep_their_keys_and_no_file_changes(edited, make):
    keys = np.stack([view.record.key for view in Project.open(edited.path, at=1).edits()])
    expected = {at: Project.open(edited.path, at=at).nearest(keys) for at in range(4)}
    files = {path: path.read_bytes() for path in edited.path.rglob("*.arrow")}
    with open_writer(edited) as writer:
        rekey(writer, new_keys(writer.project, 2, make.random), make)
    for at, routes in expected.items():
        past = Project.open(edited.path, at=at)
        assert (past.nearest(keys), past.key_map) == (routes, None)
    assert {path: path.read_bytes() for path in files} == files


def test_a_copy_of_it_stands_alone(edited, make, tmp_path):
    with open_writer(edited) as writer:
        keys = new_keys(writer.project, 2, make.random)
        rekey(writer, keys, make)
    Project.open(edited.path).copy_to(tmp_path / "copy")
    copy = Project.open(tmp_path / "copy")
    assert verify(copy.path) == []
    assert make.lookup(copy, np.stack(list(keys.values()))) == make.lookup(
        Project.open(edited.path), np.stack(list(keys.values()))
    )
    assert np.array_equal(copy.key_map.arrays["W"], KEY_MAP.arrays["W"])


def test_going_back_over_it_keeps_the_present_keys(edited, make):
    with open_writer(edited) as writer:
        keys = new_keys(writer.project, 3, make.random)
        rekey(writer, keys, make)
        make.commit_with(writer, [make.edit("later", key=np.float32([1, 2, 3]), label=(77,))])
        writer.revert_to(1, versions=make.versions)
        project = writer.project
        assert project.key_map.settings == KEY_MAP.settings
        assert [view.status for view in project.edits()] == ["live"] * 6 + ["reverted"] * 4
        names = [f"e{at:06d}" for at in range(1, 7)]
        routes = make.lookup(project, np.stack([keys[name] for name in names]))
        assert [route.fired.edit_id for route in routes] == names
    assert verify(edited.path) == []


def test_every_neuron_gets_the_token_vectors_that_are_given(edited, make):
    """Of another width; an edit left out has none, and older snapshots keep theirs."""
    keys = new_keys(edited, 3, make.random)
    tokens = {name: make.tokens(at, 9) for at, name in enumerate(list(keys)[1:], 1)}
    before = edited.tokens(edited.statuses())
    with open_writer(edited) as writer:
        rekey(writer, keys, make, tokens=tokens, radius=None)
        assert writer.project.info.counts["clusters"] == 0
        with pytest.raises(KeyShapeError, match=r"\[3, 5\] instead of \[n, 9\]"):
            writer.stage([make.edit("x", key=np.zeros(3, np.float32))], {"new": make.slices()})
    again = Project.open(edited.path)
    for name, stored in zip(again.statuses(), again.tokens(again.statuses()), strict=True):
        assert (stored is None) == (name not in tokens)
        assert stored is None or stored.tobytes() == tokens[name].tobytes()
    assert [view.cluster for view in again.edits()] == [None] * 9
    assert all(
        (one is None and other is None) or np.array_equal(one, other)
        for one, other in zip(before, Project.open(edited.path, at=3).tokens(edited.statuses()), strict=True)
    )
    assert verify(edited.path) == []


def test_edits_whose_new_keys_are_one_all_live(edited, make):
    keys = new_keys(edited, 2, make.random)
    keys["e000005"] = keys["e000001"]
    with open_writer(edited) as writer:
        rekey(writer, keys, make)
    again = Project.open(edited.path)
    assert (again.edit("e000001").status, again.edit("e000005").status) == ("live", "live")
    ((first, second),) = again.nearest(keys["e000001"][None], 2)
    assert (first.edit_id, second.edit_id, second.distance) == ("e000005", "e000001", 0.0)
    assert verify(edited.path) == []


@pytest.mark.parametrize("dim", [6, 3])
def test_the_graph_of_the_old_keys_is_not_asked(dim, edited, make, monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 4)
    with pytest.warns(StoreWarning, match="was rebuilt"):
        Project.open(edited.path).nearest(make.key()[None])
    with open_writer(edited) as writer:
        keys = new_keys(writer.project, dim, make.random)
        rekey(writer, keys, make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Project.open(edited.path)
        live = [view.edit_id for view in again.edits() if view.status == "live"]
        routes = make.lookup(again, np.stack([keys[name] for name in live]))
        assert [route.fired.edit_id for route in routes] == live
        assert verify(edited.path) == []
        past = Project.open(edited.path, at=1)
        old = np.stack([view.record.key for view in past.edits()])
        assert [route.fired.edit_id for route in make.lookup(past, old)] == [
            f"e{at:06d}" for at in range(1, 7)
        ]


def test_a_change_of_many_keys_saves_its_graph(edited, make, monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 4)
    with open_writer(edited) as writer:
        rekey(writer, new_keys(writer.project, 6, make.random), make)
    assert [path.name for path in (edited.path / "index").glob("*.hnsw")] == ["000004.hnsw"]
    assert verify(edited.path) == []


class TestRefused:
    """What does not fit is refused before anything is written."""

    def refused(self, project, error, message, keys, make, **changes):
        before = sorted(path.name for path in project.path.rglob("*"))
        with open_writer(project) as writer, pytest.raises(error, match=message):
            rekey(writer, keys, make, **changes)
        assert sorted(path.name for path in project.path.rglob("*")) == before
        assert Project.open(project.path).snapshot == 3

    def test_a_missing_or_extra_key(self, edited, make):
        keys = new_keys(edited, 3, make.random)
        missing = {name: key for name, key in keys.items() if name != "e000004"}
        message = r"e000004 needs a new key \(1 are missing, 0 are unknown\); pass one for each edit"
        self.refused(edited, InvalidEditError, message, missing, make)
        extra = {**keys, "e000008": keys["e000001"]}
        self.refused(edited, InvalidEditError, "e000008 takes no key", extra, make)
        self.refused(edited, InvalidEditError, "e000001 needs a new key", {}, make)

    @pytest.mark.parametrize("key", [np.zeros(2), np.full(3, np.nan), np.full(3, np.inf), np.zeros((1, 3))])
    def test_a_key_that_does_not_fit_the_others(self, edited, make, key):
        keys = new_keys(edited, 3, make.random)
        for name in ("e000001", "e000007"):
            self.refused(edited, KeyShapeError, "key", {**keys, name: key.astype(np.float32)}, make)

    def test_token_vectors_that_do_not_fit(self, edited, make):
        keys = new_keys(edited, 3, make.random)
        tokens = {name: make.tokens() for name in keys}
        wide, extra = {**tokens, "e000007": make.tokens(2, 6)}, {**tokens, "e000008": make.tokens()}
        self.refused(edited, KeyShapeError, "token vectors have the shape", keys, make, tokens=wide)
        self.refused(edited, InvalidEditError, "e000008 takes no token vectors", keys, make, tokens=extra)
        wide["e000007"] = np.full((1, 5), np.nan, np.float16)
        self.refused(edited, KeyShapeError, "float16 and finite", keys, make, tokens=wide)

    @pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf")])
    def test_a_radius_that_is_none(self, edited, make, radius):
        keys = new_keys(edited, 3, make.random)
        self.refused(edited, InvalidEditError, "e000001: .* is not a radius", keys, make, radius=radius)

    @pytest.mark.parametrize(
        "key_map",
        [
            KeyMap({"x": object()}, {}),
            KeyMap({"x": float("nan")}, {}),
            KeyMap({}, {"W": np.zeros(3)}),
            KeyMap({}, {"W": np.float32([np.nan])}),
            KeyMap({}, {"W": [1.0]}),
            KeyMap({}, {"\ud800": np.zeros(3, np.float32)}),
        ],
    )
    def test_a_key_map_that_is_none(self, edited, make, key_map):
        keys = new_keys(edited, 3, make.random)
        self.refused(edited, InvalidEditError, "key map", keys, make, key_map=key_map)

    def test_a_new_edit_with_a_key_of_the_old_size(self, edited, make):
        with open_writer(edited) as writer:
            rekey(writer, new_keys(writer.project, 3, make.random), make)
            with pytest.raises(KeyShapeError):
                writer.stage([NewEdit("x", "y", key=make.key(), radius=1.0, block="n")], {"n": make.slices()})


def test_a_damaged_key_map_is_named(edited, make):
    with open_writer(edited) as writer:
        rekey(writer, new_keys(writer.project, 3, make.random), make)
    path = edited.path / "keymaps/000004.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedProjectError, match=r"000004\.arrow: its checksum"):
        _ = Project.open(edited.path).key_map
    (finding,) = verify(edited.path)
    assert finding.file == "keymaps/000004.arrow"
    assert (
        finding.lost
        == "the key map, which makes every key, of snapshot 4, and with it every snapshot from 4 on"
    )
