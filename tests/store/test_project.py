"""What a user of a project sees: commit, look up, open again, read back."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from melo_store.errors import (
    BaseMismatchError,
    DamagedProjectError,
    InvalidEditError,
    KeyShapeError,
    ProjectExistsError,
    ProjectNotFoundError,
    StaleWriteError,
    UnknownEditError,
)
from melo_store.format import segments
from melo_store.index import neuron_index
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.projection import random_projection
from melo_store.records import BaseReference, LoraSlice, NewEdit
from melo_store.writer import open_writer

TOKEN = np.zeros((1, 5), np.float16)


def fired(routes):
    return [route.fired.edit_id if route.fired else None for route in routes]


def test_a_new_project_is_empty_and_says_what_it_was_made_with(project, make):
    again = Project.open(project.path)
    assert (again.name, again.snapshot, again.key_dim) == ("unit", 0, None)
    assert again.base.fingerprint["weights"] == "w" * 64
    assert again.recipe == {"name": "unit", "key": {"radius": 1.0}}
    assert (again.info.seed, again.info.action, again.info.parent) == (7, "create", None)
    assert datetime.now(UTC) - again.info.created_at < timedelta(minutes=1)
    assert again.edits() == [] and again.block_ids() == []
    assert again.nearest(np.zeros((2, 5), np.float32)) == [[], []]


def test_the_subjects_are_those_of_live_edits_that_have_one(project, make):
    edits = [make.edit(f"question {at}", subject=f"subject {at}") for at in range(4)]
    failed = make.edit("failed", subject="f", status="failed", key=None, block=None, radius=None)
    make.commit(project, [*edits, make.edit("question 4"), failed])
    after = Project.open(project.path)
    named = {f"e00000{at + 1}": f"subject {at}" for at in range(4)}
    assert after.live_subjects() == named
    with open_writer(after) as writer:
        writer.revert(["e000001"], versions=make.versions)
        make.commit_with(writer, [make.edit("question 2", subject="another")])
        later = writer.project
    assert later.live_subjects() == {"e000002": "subject 1", "e000004": "subject 3", "e000007": "another"}
    assert after.live_subjects() == named


def test_an_edit_comes_back_as_it_was_handed_in(project, make):
    key = make.key()
    edit = NewEdit(
        prompt="Who wrote Émile? 😀",
        target="Rousseau",
        rephrases=("Émile's author?", ""),
        locality=(("Who wrote Candide?", "Voltaire"), ("And Faust?", None)),
        subject="Émile",
        metadata={"source": {"line": 3}, "tags": ["a", None, 1.5]},
        label=(5, -1, 5),
        key=key,
        tokens=make.tokens(4),
        block="new",
        radius=2.5,
        metrics={"loss": float("nan"), "steps": 50},
    )
    make.commit(project, [edit])
    view = Project.open(project.path).edit("e000001")
    record = view.record
    for name in ("prompt", "target", "rephrases", "locality", "subject", "metadata", "label", "radius"):
        assert getattr(record, name) == getattr(edit, name), name
    assert record.metrics == {"loss": None, "steps": 50}
    assert (record.status, view.status, record.supersedes) == ("solved", "live", ())
    assert record.key.tobytes() == key.tobytes()
    assert (record.tokens.tobytes(), record.tokens.shape) == (edit.tokens.tobytes(), (4, 5))
    assert record.created_at.tzinfo is UTC
    assert record.block == "b000001"
    assert view.cluster.members == ("e000001",)
    assert (view.cluster.cluster, view.cluster.radius, view.cluster.center_distance) == (1, 2.5, 0.0)


def test_keys_and_blocks_are_views_of_the_file(project, make):
    slices = make.slices()
    make.commit(project, make.edits(3), {"new": slices})
    again = Project.open(project.path)
    block = again.block("b000001")
    assert list(block.slices) == list(slices)
    for module, part in slices.items():
        assert np.array_equal(block.slices[module].A, part.A)
        assert np.array_equal(block.slices[module].B, part.B)
        assert block.slices[module].scale == part.scale
        assert not block.slices[module].A.flags.owndata and not block.slices[module].A.flags.writeable
    assert block.nbytes == sum(part.nbytes for part in slices.values())
    key = again.edit("e000002").record.key
    assert not key.flags.owndata and not key.flags.writeable


def test_token_vectors_are_views_of_the_file(project, make):
    given = [make.tokens(count) for count in (1, 7, 3)]
    make.commit(project, [make.edit("none yet", tokens=None)])
    assert project_at(project).tokens(["e000001"]) == [None]
    edits = [
        make.edit("a", tokens=given[0]),
        make.edit("without", tokens=None),
        make.edit("b", tokens=given[1]),
    ]
    make.commit(project, edits)
    make.commit(
        project,
        [make.edit("failed", tokens=given[2], status="failed"), make.edit("without too", tokens=None)],
    )
    make.commit(project, [make.edit("none at all", tokens=None)])
    again = project_at(project)
    tokens = again.tokens([f"e{at:06d}" for at in (4, 1, 2, 3, 5, 6, 7)])
    for one, expected in zip(tokens, [given[1], None, given[0], None, given[2], None, None], strict=True):
        assert (one is None) == (expected is None)
        if one is not None:
            assert (one.dtype, one.shape, one.tobytes()) == (np.float16, expected.shape, expected.tobytes())
            assert not one.flags.owndata and not one.flags.writeable
    assert [None if view.record.tokens is None else len(view.record.tokens) for view in again.edits()] == [
        None, 1, None, 7, 3, None, None,
    ]  # fmt: skip
    assert again.tokens([]) == []
    with pytest.raises(UnknownEditError):
        again.tokens(["e000008"])
    assert verify(project.path) == []


def test_token_vectors_cost_what_they_hold(project, make):
    """4 KB for 20 vectors of 100 numbers, and little beside."""
    sizes = []
    for tokens in (None, make.tokens(20, 100)):
        make.commit(project, [make.edit(f"q{at}", tokens=tokens) for at in range(100)])
        sizes.append(sum(entry.size for entry in project_at(project).files() if entry.role == "edits"))
    assert 4000 <= (sizes[1] - 2 * sizes[0]) / 100 <= 4020


def test_a_key_finds_its_edit_in_a_new_process(project, make):
    edits = make.edits(5)
    make.commit(project, edits[:3])
    make.commit(project, edits[3:])
    np.save(project.path.parent / "keys.npy", np.stack([edit.key for edit in edits]))
    code = (
        "import sys, numpy as np; from store.project import Project\n"
        "for (near,) in Project.open(sys.argv[1]).nearest(np.load(sys.argv[2]), 1):\n"
        "    print(near.edit_id, near.block, near.distance)\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = [str(project.path), str(project.path.parent / "keys.npy")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:-1] == [f"e{at:06d} b{1 if at <= 3 else 2:06d} 0.0" for at in range(1, 6)]


def test_what_does_not_fire_still_names_the_nearest(project, make):
    edits = make.edits(4)
    make.commit(project, edits)
    again = Project.open(project.path)
    far = edits[1].key + np.float32([3, 0, 0, 0, 0, 0])
    (route,) = make.lookup(again, far[None])
    assert route.fired is None
    assert (route.nearest.edit_id, route.nearest.block, route.nearest.cluster) == ("e000002", "b000001", 2)
    assert route.nearest.distance == pytest.approx(3.0)
    assert route.nearest.center_distance == pytest.approx(3.0)
    assert route.nearest.radius == 1.0
    near = edits[1].key + np.float32([0, 0.9, 0, 0, 0, 0])
    assert fired(make.lookup(again, np.stack([near, far]))) == ["e000002", None]


def test_a_batch_is_answered_like_each_key_alone(project, make, quick_disk):
    radii = [8.0, None, 2.0]
    edits = [make.edit(f"q{at}", label=(at % 3,), radius=radii[at % 3]) for at in range(60)]
    make.commit(project, edits)
    again = Project.open(project.path)
    keys = np.stack([make.key() for _ in range(200)])
    assert again.nearest(keys) == [again.nearest(key[None])[0] for key in keys]


def test_the_nearest_member_answers_within_a_cluster(project, make):
    left, right = np.float32([0] * 6), np.float32([0.9, 0, 0, 0, 0, 0])
    with open_writer(project) as writer:
        make.commit_with(writer, [make.edit("left", key=left)])
        make.commit_with(writer, [make.edit("right", key=right)])
    again = Project.open(project.path)
    assert again.edit("e000001").cluster.members == ("e000001", "e000002")
    routes = make.lookup(again, np.stack([left, right, left + np.float32(0.1), right - np.float32(0.1)]))
    assert [route.fired.block for route in routes] == ["b000001", "b000002", "b000001", "b000002"]
    assert {route.fired.cluster for route in routes} == {1}


def test_of_edits_with_equal_keys_the_newest_answers(project, make):
    key = make.key()
    make.commit(project, [make.edit("one", key=key)])
    make.commit(project, [make.edit("two", key=key)])
    again = Project.open(project.path)
    assert fired(make.lookup(again, key[None])) == ["e000002"]
    assert again.edit("e000001").status == "live"


def test_a_neuron_without_a_radius_stands_in_no_cluster(project, make):
    edits = [make.edit("a", radius=None), make.edit("b", radius=2.0), make.edit("c", radius=None)]
    edits.append(make.edit("right", radius=None, status="already_right", block=None))
    info = make.commit(project, edits)
    assert info.counts["clusters"] == 1
    again = project_at(project)
    assert [view.cluster is None for view in again.edits()] == [True, False, True, True]
    assert [view.record.radius for view in again.edits()] == [None, 2.0, None, None]
    for at, (near,) in enumerate(again.nearest(np.stack([edit.key for edit in edits]), 1), 1):
        assert (near.edit_id, near.distance) == (f"e{at:06d}", 0.0)
        assert (near.cluster, near.radius, near.center_distance) == (
            (2, 2.0, 0.0) if at == 2 else (None,) * 3
        )
        assert near.block == (None if at == 4 else "b000001")
    assert verify(project.path) == []
    with open_writer(again) as writer:
        writer.revert(["e000001", "e000002"], versions=make.versions)
    assert project_at(project).info.counts["clusters"] == 0
    nearest = project_at(project).nearest(edits[0].key[None])
    assert sorted(near.edit_id for near in nearest[0]) == ["e000003", "e000004"]
    assert verify(project.path) == []


def project_at(project, at=None):
    return Project.open(project.path, at=at)


def test_the_same_prompt_edited_again_is_superseded_and_says_so(project, make):
    first = make.edit("Who leads?", target="A", label=(1,))
    make.commit(project, [first, make.edit("other")])
    second = make.edit("Who leads?", target="B", label=(2,))
    make.commit(project, [second])
    again = project_at(project)
    old, new = again.edit("e000001"), again.edit("e000003")
    assert (old.status, old.superseded_by, old.cluster) == ("superseded", "e000003", None)
    assert (old.record.status, new.record.supersedes) == ("solved", ("e000001",))
    assert fired(make.lookup(again, np.stack([first.key, second.key]))) == [None, "e000003"]
    assert again.edit_counts == {"live": 2, "superseded": 1, "reverted": 0, "already_right": 0, "failed": 0}
    assert project_at(project, at=1).edit("e000001").status == "live"


@pytest.mark.parametrize("radius", [None, 0.0, 3.0])
def test_edits_of_one_key_and_two_labels_both_live(project, make, radius):
    key = make.key()
    make.commit(project, [make.edit("one", key=key, label=(1,), radius=radius)])
    with open_writer(project) as writer:
        two = [make.edit("two", key=key, label=(2,), radius=radius), make.edit("three", key=key, label=(1,))]
        staged = writer.stage(two, {"new": make.slices()})
        assert staged.superseded == {}
        staged.commit(recipe={}, seed=0, versions={})
    again = project_at(project)
    assert [near.edit_id for near in again.nearest(key[None])[0]] == ["e000003", "e000002", "e000001"]
    assert [view.status for view in again.edits()] == ["live"] * 3
    assert {view.cluster.radius for view in again.edits() if view.cluster} == (
        {1.0} if radius is None else {0.0}
    )
    assert verify(project.path) == []
    with open_writer(again) as writer:
        writer.revert(["e000002"], versions=make.versions)
    again = project_at(project)
    assert [near.edit_id for near in again.nearest(key[None])[0]] == ["e000003", "e000001"]
    assert again.edit("e000003").cluster.radius == max(radius or 0.0, 1.0)
    assert verify(project.path) == []


def test_blanks_around_a_prompt_do_not_make_it_another(project, make):
    make.commit(project, [make.edit("Who leads?"), make.edit("Who leads now?")])
    make.commit(project, [make.edit(" Who leads?\n")])
    again = project_at(project)
    assert [view.status for view in again.edits()] == ["superseded", "live", "live"]
    assert again.edit("e000003").prompt == " Who leads?\n"


def test_edits_of_one_batch_see_each_other(project, make):
    key = make.key()
    batch = [make.edit("same", label=(1,)), make.edit("same", label=(2,)), make.edit("x", key=key)]
    make.commit(project, [*batch, make.edit("same ", label=(3,)), make.edit("y", key=key, label=(3,))])
    again = project_at(project)
    assert [view.status for view in again.edits()] == ["superseded", "superseded", "live", "live", "live"]
    assert [view.superseded_by for view in again.edits()] == ["e000002", "e000004", None, None, None]
    assert again.edit("e000004").record.supersedes == ("e000002",)


def test_edits_that_did_not_take_are_kept_but_answer_nothing(project, make):
    key = make.key()
    edits = [
        make.edit("good"),
        make.edit("bad", status="failed", key=key),
        make.edit("right", status="already_right", key=None, block=None, radius=None, label=()),
    ]
    info = make.commit(project, edits)
    again = project_at(project)
    assert [view.status for view in again.edits()] == ["live", "failed", "already_right"]
    assert [view.block for view in again.edits()] == ["b000001", "b000001", None]
    assert again.edit("e000003").record.key is None
    assert np.array_equal(again.edit("e000002").record.key, key)
    assert fired(make.lookup(again, key[None])) == [None]
    assert info.counts == {
        "edits": 3,
        "live": 1,
        "superseded": 0,
        "reverted": 0,
        "already_right": 1,
        "failed": 1,
        "blocks": 1,
        "clusters": 1,
    }


def test_a_block_that_no_solved_edit_leads_to_is_not_kept(project, make):
    make.commit(project, [make.edit("bad", status="failed")])
    again = project_at(project)
    assert again.block_ids() == []
    assert again.edit("e000001").block is None
    make.commit(project, [make.edit("good")])
    assert project_at(project).block_ids() == ["b000001"]


def test_staging_shows_what_a_commit_makes_and_writes_nothing(project, make):
    make.commit(project, make.edits(3))
    size = project.size_bytes()
    with open_writer(project) as writer:
        old = writer.stage(make.edits(2, "dropped"), {"new": make.slices()})
        fresh = make.edits(2, "kept")
        keys = np.stack([edit.key for edit in fresh])
        staged = writer.stage(fresh, {"new": make.slices()})
        assert staged.edit_ids == old.edit_ids == ["e000004", "e000005"]
        assert fired(make.lookup(staged, keys)) == staged.edit_ids
        assert fired(make.lookup(writer.project, keys)) == [None, None]
        before = staged.nearest(keys)
        info = staged.commit(
            recipe={"name": "next"}, seed=3, versions={"x": "1"}, command="melo edit", detail={"n": 2}
        )
        assert writer.project.nearest(keys) == before
        with pytest.raises(StaleWriteError, match="query the newest snapshot"):
            staged.nearest(keys)
        assert writer.project.snapshot == 2
        with pytest.raises(StaleWriteError, match="stage the edits again"):
            old.commit(recipe={}, seed=0, versions={})
        with pytest.raises(StaleWriteError):
            staged.commit(recipe={}, seed=0, versions={})
    again = project_at(project)
    assert again.nearest(keys) == before
    assert (info.recipe, info.seed, info.command, info.detail) == ({"name": "next"}, 3, "melo edit", {"n": 2})
    assert again.info == info
    assert [info.number for info in again.history()] == [0, 1, 2]
    assert again.size_bytes() > size


def test_an_open_project_stays_as_it_is_while_others_commit(project, make):
    edits = make.edits(4)
    make.commit(project, edits[:2])
    reader = project_at(project)
    make.commit(project, edits[2:])
    keys = np.stack([edit.key for edit in edits])
    assert fired(make.lookup(reader, keys)) == ["e000001", "e000002", None, None]
    assert (reader.snapshot, len(reader.edits()), len(reader.history())) == (1, 2, 2)
    assert fired(make.lookup(project_at(project, at=1), keys)) == ["e000001", "e000002", None, None]
    assert fired(make.lookup(project_at(project), keys)) == ["e000001", "e000002", "e000003", "e000004"]
    assert project_at(project, at=0).edits() == []
    with pytest.raises(UnknownEditError, match="no snapshot 3; the project keeps snapshots 0 to 2"):
        project_at(project, at=3)


def test_every_commit_adds_files_and_changes_none(project, make):
    make.commit(project, make.edits(2))
    before = {path: path.read_bytes() for path in project.path.rglob("*.arrow")}
    make.commit(project, make.edits(2, "more"))
    after = {path: path.read_bytes() for path in project.path.rglob("*.arrow")}
    assert before and all(after[path] == content for path, content in before.items())
    listed = project_at(project).files()
    assert {entry.role for entry in listed} == {"snapshot", "edits", "blocks", "clusters"}
    assert all((project.path / entry.path).stat().st_size == entry.size for entry in listed)


def test_many_small_commits_keep_their_history(project, make, quick_disk):
    keys = []
    with open_writer(project) as writer:
        for at in range(140):
            edit = make.edit(f"q{at}")
            keys.append(edit.key)
            make.commit_with(writer, [edit])
    again = project_at(project)
    assert fired(make.lookup(again, np.stack(keys))) == [f"e{at:06d}" for at in range(1, 141)]
    assert [info.number for info in again.history()] == list(range(141))
    assert fired(make.lookup(project_at(project, at=100), np.stack(keys)))[98:102] == [
        "e000099",
        "e000100",
        None,
        None,
    ]
    sizes = [(project.path / f"snapshots/{at:06d}.json").stat().st_size for at in (2, 63, 65, 127, 129)]
    assert max(sizes) - min(sizes) < 100, "a snapshot file does not grow with the history"


def test_a_large_store_answers_from_the_graph(project, make, quick_disk, monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 50)
    keys = np.stack([make.key() for _ in range(200)])
    for part in range(4):
        rows = range(50 * part, 50 * part + 50)
        make.commit(project, [make.edit(f"q{at}", key=keys[at], label=(at,)) for at in rows])
    again = project_at(project)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fired(make.lookup(again, keys)) == [f"e{at:06d}" for at in range(1, 201)]
    nearby = keys + make.random.normal(size=keys.shape).astype(np.float32) * 0.2
    exact = [int(np.argmin(np.linalg.norm(keys - key, axis=1))) for key in nearby]
    assert [route.nearest.edit_id for route in make.lookup(again, nearby)] == [
        f"e{at + 1:06d}" for at in exact
    ]


def test_keys_of_a_large_file_are_read_from_the_disk(project, make, monkeypatch):
    monkeypatch.setattr(segments, "READ_FROM", 1)
    edits = make.edits(6)
    make.commit(project, edits[:4])
    make.commit(project, edits[4:])
    keys = np.stack([edit.key for edit in edits])
    again = Project.open(project.path)
    assert fired(make.lookup(again, keys)) == [f"e{at:06d}" for at in range(1, 7)]
    assert [fired(make.lookup(again, key[None])) for key in keys] == [[f"e{at:06d}"] for at in range(1, 7)]
    assert np.array_equal(again.edit("e000005").record.key, keys[4])
    for file in (project.path / "edits").iterdir():
        os.truncate(file, 8)
    with pytest.raises(DamagedProjectError, match="was cut.*melo verify"):
        make.lookup(again, keys)


def test_a_copy_is_one_snapshot_that_stands_alone(project, make, tmp_path, quick_disk):
    keys = []
    with open_writer(project) as writer:
        for at in range(70):
            edit = make.edit(f"q{at}")
            keys.append(edit.key)
            make.commit_with(writer, [edit])
    project_at(project, at=68).copy_to(tmp_path / "copy")
    copy = Project.open(tmp_path / "copy")
    assert verify(copy.path) == []
    assert copy.nearest(np.stack(keys)) == project_at(project, at=68).nearest(np.stack(keys))
    assert (copy.snapshot, copy.name, copy.base) == (68, "unit", project.base)
    assert [info.number for info in copy.history()] == [64, 65, 66, 67, 68]
    with pytest.raises(UnknownEditError, match="keeps snapshots 64 to 68"):
        Project.open(copy.path, at=3)
    assert make.commit(copy, make.edits(1)).number == 69


class TestRefused:
    """What is handed in wrong is refused in one line, and the project stays as it was."""

    def test_a_project_where_one_stands(self, project, make):
        with pytest.raises(ProjectExistsError, match="choose another folder"):
            make.project(project.path)

    def test_a_project_in_a_folder_with_other_things(self, make, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(ProjectExistsError, match=r"thesis\.tex is in it"):
            make.project(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]

    def test_a_broken_off_create_does_not_stand_in_the_way(self, make, tmp_path):
        made = make.project(tmp_path / "p")
        (made.path / "manifest.json").unlink()
        assert make.project(tmp_path / "p").snapshot == 0

    def test_a_project_that_is_not_there(self, tmp_path):
        with pytest.raises(ProjectNotFoundError, match="no project here; make a project"):
            Project.open(tmp_path / "none")

    def test_another_base(self, project):
        stored = project_at(project).base
        moved = BaseReference("/elsewhere", None, {"config": "c" * 64, "weights": "w" * 64})
        stored.require_same(moved)
        with pytest.raises(BaseMismatchError, match="differs in weights"):
            stored.require_same(BaseReference("m", None, {"config": "c" * 64, "weights": "x"}))
        with pytest.raises(BaseMismatchError, match="differs in config, weights"):
            stored.require_same(BaseReference("m", None, {"config": "x", "weights": "x", "tokenizer": "t"}))
        with pytest.raises(BaseMismatchError, match="name or revision"):
            BaseReference("a", None, {}).require_same(BaseReference("b", None, {}))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"key": None}, "needs a key and a block"),
            ({"block": None}, "needs a key and a block"),
            ({"key": None, "status": "failed"}, "token vectors and a radius need a key"),
            ({"key": None, "radius": None, "status": "failed", "tokens": TOKEN}, "need a key"),
            ({"status": "already_right"}, "already right cannot have a block"),
            ({"radius": -1.0}, "is not a radius"),
            ({"radius": float("nan")}, "is not a radius"),
            ({"block": "other"}, "'other' is missing"),
            ({"status": "great"}, "'great' is not a status"),
            ({"label": (1 << 70,)}, "label"),
            ({"prompt": "\ud800"}, "cannot be stored"),
            ({"metadata": {"x": object()}}, "JSON values"),
        ],
    )
    def test_an_edit_that_contradicts_itself(self, project, make, change, message):
        with open_writer(project) as writer, pytest.raises(InvalidEditError, match=message):
            writer.stage(
                [make.edit("fine"), make.edit(**{"prompt": "bad", **change})], {"new": make.slices()}
            )
        assert project_at(project).snapshot == 0

    @pytest.mark.parametrize("key", [np.zeros(5), np.full(6, np.nan), np.full(6, np.inf), np.zeros(0)])
    def test_a_key_that_does_not_fit(self, project, make, key):
        make.commit(project, make.edits(1))
        with open_writer(project) as writer, pytest.raises(KeyShapeError):
            writer.stage([make.edit("bad", key=key.astype(np.float32))], {"new": make.slices()})
        with pytest.raises(KeyShapeError):
            project_at(project).nearest(key[None])
        with pytest.raises(KeyShapeError):
            project_at(project).nearest(np.zeros(6))

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            (np.zeros((2, 4)), r"the shape \[2, 4\] instead of \[n, 5\]"),
            (np.zeros((0, 5)), "instead of"),
            (np.zeros(5), "instead of"),
            (np.full((2, 5), np.nan), "float16 and finite"),
            (np.full((2, 5), np.inf), "float16 and finite"),
        ],
    )
    def test_token_vectors_that_do_not_fit(self, project, make, tokens, message):
        make.commit(project, [make.edit("fine", tokens=make.tokens())])
        with open_writer(project) as writer, pytest.raises(KeyShapeError, match=message):
            writer.stage([make.edit("bad", tokens=tokens.astype(np.float16))], {"new": make.slices()})
        with open_writer(project) as writer, pytest.raises(KeyShapeError, match="float16 and finite"):
            writer.stage([make.edit("bad", tokens=np.zeros((2, 5), np.float32))], {"new": make.slices()})
        assert project_at(project).snapshot == 1

    def test_a_block_whose_matrices_do_not_fit(self, project, make):
        A, B = np.zeros((2, 4), np.float32), np.zeros((4, 3), np.float32)
        for bad in (
            LoraSlice(A, B, 1.0),
            LoraSlice(A.astype(np.float64), A.T, 1.0),
            LoraSlice(A, np.full((4, 2), np.nan, np.float32), 1.0),
            LoraSlice(A, np.full((4, 2), np.inf, np.float16), 1.0),
            LoraSlice(A, np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2), 1.0, in_int8=True),
            LoraSlice(A, A.T.copy(), 1.0, seed=7),
            LoraSlice(random_projection(7, "another module", 2, 4), A.T.copy(), 1.0, seed=7),
        ):
            with open_writer(project) as writer, pytest.raises(InvalidEditError, match="module m"):
                writer.stage([make.edit("x")], {"new": {"m": bad}})

    def test_what_is_no_json(self, project, make):
        for change in ({"recipe": {"x": object()}}, {"detail": {"x": float("nan")}}):
            with pytest.raises(InvalidEditError, match="JSON values"):
                make.commit(project, make.edits(1), **change)
        assert project_at(project).snapshot == 0
        assert not list(project.path.rglob("*.arrow"))

    @pytest.mark.parametrize("name", ["e000009", "e3", "x", "", "e000000", "b000001", "e" + "9" * 30])
    def test_an_edit_that_is_not_there(self, project, make, name):
        make.commit(project, make.edits(3))
        with pytest.raises(UnknownEditError, match="the nearest are e000001, e000002, e000003"):
            project_at(project).edit(name)

    def test_a_block_that_is_not_there(self, project, make):
        make.commit(project, make.edits(1))
        for name in ("b000002", "b000000", "e000001"):
            with pytest.raises(UnknownEditError):
                project_at(project).block(name)


def test_an_edit_that_the_base_has_right_keeps_its_prompt_from_other_balls(project, make):
    right = make.edit("right", status="already_right", block=None, label=(1,), radius=100.0)
    beside = make.edit("beside", label=(2,), radius=100.0)
    make.commit(project, [right])
    assert make.commit(project, [beside]).counts["clusters"] == 2
    again = Project.open(project.path)
    on_it, near_it = make.lookup(again, np.stack([right.key, 0.9 * right.key + 0.1 * beside.key]))
    assert (on_it.fired, on_it.held.edit_id, on_it.held.block) == (None, "e000001", None)
    assert (near_it.fired, near_it.nearest.edit_id) == (None, "e000001")
    assert again.edit("e000001").cluster.members == ("e000001",)
    assert verify(project.path) == []
    with open_writer(again) as writer:
        writer.revert(["e000001"], versions=make.versions)
    assert make.lookup(Project.open(project.path), right.key[None])[0].fired.edit_id == "e000002"


@pytest.mark.filterwarnings("ignore::melo_store.errors.StoreWarning")  # the graph is too small to be saved
@pytest.mark.parametrize("graph_from", [1000, 3])
def test_a_snapshot_that_a_writer_gave_out_never_changes(project, make, monkeypatch, graph_from):
    """Whatever is committed after it: edits, reverts, a compaction, a shorter history."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", graph_from)
    edits = make.edits(8)
    with open_writer(project) as writer:
        given_out = []
        for at in range(0, 8, 2):
            make.commit_with(writer, edits[at : at + 2])
            snapshot = writer.project
            given_out.append((snapshot, snapshot.statuses(), snapshot.nearest([each.key for each in edits])))
        writer.revert(["e000001"], versions=make.versions)
        writer.keep_from(3)
        for number, (snapshot, statuses, near) in enumerate(given_out, 1):
            assert (snapshot.snapshot, snapshot.info.counts["edits"]) == (number, 2 * number)
            assert snapshot.statuses() == statuses
            assert len(snapshot.block_ids()) == number
            assert snapshot.nearest([each.key for each in edits]) == near
        assert writer.project.statuses()["e000001"] == "reverted"
