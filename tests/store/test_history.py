"""Undo, history, new keys and compaction: after any commits, reverts, re-keyings and removals of garbage a
project is what it would be had the edits that stand been made once, in order, with the present keys.

The plain model knows edits in their order and which of them are reverted; everything else it works out anew
each time, and it shares no rule with the store but `rules.insert`, which has its own plain model.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from melo_store.clusters.cluster_set import ClusterSet
from melo_store.clusters.rules import Neuron, insert
from melo_store.errors import UnknownEditError
from melo_store.format import file_io, merge_plan
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import ROUTING, BaseReference, KeyMap, LoraSlice, NewEdit
from melo_store.writer import open_writer

DIM = 2
VERSIONS = {"torch": "2.13"}
GRID = np.array([[x, y] for x in range(-3, 4) for y in (-2, 0, 2)], np.float32) * np.float32(1.01)


def slices_like_no_other(number):
    """A block's content that differs from that of every other number, mostly in shape as well."""
    rank = 1 + number % 3
    values = number + np.arange(4 * rank, dtype=np.float32).reshape(2, 2, rank) / 64
    return {"m": LoraSlice(values[0].T, values[1], float(number))}


def same_slices(one, two):
    return one.keys() == two.keys() and all(
        part.scale == two[name].scale
        and np.array_equal(part.A, two[name].A)
        and np.array_equal(part.B, two[name].B)
        for name, part in one.items()
    )


def l2_distance(a, b):
    return float(np.sqrt(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


class Model:
    """Edits in order; what answers is worked out from those that are not reverted.

    The blocks go by the names that the edits have for them, which no other commit uses.
    """

    def __init__(self, edits=(), reverted=(), key_map=None, blocks=()):
        self.edits = list(edits)
        self.reverted = set(reverted)
        self.key_map = key_map
        self.blocks = dict(blocks)

    def copy(self):
        return Model(self.edits, self.reverted, self.key_map, self.blocks)

    def replaces(self, newer, older):
        return newer.prompt.strip() == older.prompt.strip()

    def superseded(self):
        by_number = {}
        numbered = [
            (n, e) for n, e in enumerate(self.edits, 1) if n not in self.reverted and e.status in ROUTING
        ]
        for number, edit in numbered:
            for later, newer in numbered:
                if later > number and number not in by_number and self.replaces(newer, edit):
                    by_number[number] = later
        return by_number

    def statuses(self):
        superseded = self.superseded()
        return [
            "reverted"
            if number in self.reverted
            else "superseded"
            if number in superseded
            else "live"
            if edit.status == "solved"
            else edit.status
            for number, edit in enumerate(self.edits, 1)
        ]

    def live(self):
        return [n for n, status in enumerate(self.statuses(), 1) if status in ("live", "already_right")]

    def clusters(self):
        clusters = ClusterSet(DIM, self)
        for number in self.live():
            if self.edits[number - 1].radius is not None:
                insert(clusters, self.neuron(number))
        return list(clusters.clusters())

    def keys(self, numbers):
        return np.array([self.edits[int(n) - 1].key for n in numbers], np.float32).reshape(-1, DIM)

    def radii(self, numbers):
        return np.array([self.edits[int(n) - 1].radius for n in numbers])

    def neuron(self, number):
        edit = self.edits[number - 1]
        return Neuron(number, edit.key, edit.label, edit.radius)


def described(project):
    """What a project holds in the index, as the model can say it too."""
    views = {view.cluster.cluster: view for view in project.edits() if view.cluster}
    return {number: (view.cluster.members, view.cluster.radius) for number, view in views.items()}


def check_nearest(project, clusters, model, points):
    """Against every live neuron, one by one: order, ties, distances, clusters and blocks."""
    homes = {number: cluster for cluster in clusters for number in cluster.members}
    blocks = set()
    for count in (1, 3, 8):
        for point, near in zip(points, project.nearest(points, count), strict=True):
            expected = sorted((l2_distance(model.edits[n - 1].key, point), -n) for n in model.live())[:count]
            assert [one.edit_id for one in near] == [f"e{-n:06d}" for _, n in expected]
            for one, (distance, negative) in zip(near, expected, strict=True):
                edit, home = model.edits[-negative - 1], homes.get(-negative)
                assert one.distance == pytest.approx(distance, abs=1e-9)
                assert (one.block is None) == (edit.status == "already_right")
                blocks.add((one.block, edit.block))
                assert (home is None) == (edit.radius is None)
                assert (one.cluster, one.radius) == (
                    (None, None) if home is None else (home.number, home.radius)
                )
                if home is not None:
                    assert one.center_distance == pytest.approx(l2_distance(home.center, point), abs=1e-9)
    for stored, given in blocks - {(None, None)}:
        assert same_slices(project.block(stored).slices, model.blocks[given])


def same_tokens(one, other):
    return one is other is None or (one is not None and other is not None and np.array_equal(one, other))


drawn_key = st.tuples(st.integers(-3, 3), st.integers(-2, 2)).map(lambda xy: np.array(xy, np.float32))
drawn_radius = st.sampled_from([0.0, 0.6, 1.0, 2.2, None])
drawn_tokens = st.none() | st.tuples(st.integers(1, 3), st.integers(0, 9)).map(
    lambda drawn: np.full((drawn[0], 4), drawn[1], np.float16)
)
drawn_edit = st.builds(
    NewEdit,
    prompt=st.sampled_from([*"abcdefgh", " a", "b\n"]),
    target=st.just("t"),
    label=st.tuples(st.integers(0, 2)),
    key=drawn_key,
    radius=drawn_radius,
    tokens=drawn_tokens,
    block=st.sampled_from(["one", "one", "two"]),
    status=st.sampled_from(["solved"] * 6 + ["failed"]),
)
drawn_right = drawn_edit.map(lambda edit: replace(edit, status="already_right", block=None))
drawn_batch = st.lists(drawn_edit | drawn_edit | drawn_edit | drawn_right, min_size=1, max_size=5)


class History(RuleBasedStateMachine):
    """Random commits and reverts on a real project beside the model."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        base = BaseReference("m", None, {"config": "c"})
        self.project = Project.create(
            self.folder / "p", name="p", base=base, recipe={}, seed=0, versions=VERSIONS
        )
        self.model = Model()
        self.past = [self.model.copy()]
        self.oldest = 0

    @rule(batches=st.lists(drawn_batch, min_size=1, max_size=3))
    def commit(self, batches):
        with open_writer(self.project) as writer:
            for edits in batches:
                self.commit_with(writer, edits)

    def commit_with(self, writer, edits):
        number = len(self.past)
        edits = [replace(edit, block=edit.block and f"{edit.block} of {number}") for edit in edits]
        blocks = {
            f"one of {number}": slices_like_no_other(2 * number),
            f"two of {number}": slices_like_no_other(2 * number + 1),
        }
        staged = writer.stage(edits, blocks)
        nearest = staged.nearest(GRID)
        staged.commit(recipe={}, seed=0, versions=VERSIONS)
        assert writer.project.nearest(GRID) == nearest
        assert described(writer.project) == described(Project.open(self.project.path))
        self.model.edits += edits
        self.model.blocks |= blocks
        self.past.append(self.model.copy())

    @precondition(lambda self: self.model.edits)
    @rule(data=st.data())
    def revert(self, data):
        numbers = data.draw(st.sets(st.integers(1, len(self.model.edits)), min_size=1, max_size=4))
        with open_writer(self.project) as writer:
            info = writer.revert([f"e{number:06d}" for number in numbers], versions=VERSIONS)
        if numbers - self.model.reverted:
            self.model.reverted |= numbers
            self.past.append(self.model.copy())
        assert info.number == len(self.past) - 1

    @rule(data=st.data())
    def revert_to(self, data):
        number = data.draw(st.integers(self.oldest, len(self.past) - 1))
        then = self.past[number]
        later = set(range(len(then.edits) + 1, len(self.model.edits) + 1))
        with open_writer(self.project) as writer:
            writer.revert_to(number, versions=VERSIONS)
        if self.model.reverted != then.reverted | later:
            self.model.reverted = then.reverted | later
            self.past.append(self.model.copy())

    @rule(data=st.data())
    def rekey(self, data):
        edits = [
            replace(
                edit, key=data.draw(drawn_key), radius=data.draw(drawn_radius), tokens=data.draw(drawn_tokens)
            )
            if edit.status in ROUTING
            else replace(edit, tokens=None)
            for edit in self.model.edits
        ]
        neurons = {f"e{n:06d}": edit for n, edit in enumerate(edits, 1) if edit.status in ROUTING}
        key_map = KeyMap({"at": len(self.past)}, {"W": np.full((2, 3), len(self.past), np.float32)})
        with open_writer(self.project) as writer:
            writer.rekey(
                key_map,
                {name: edit.key for name, edit in neurons.items()},
                {name: edit.tokens for name, edit in neurons.items() if edit.tokens is not None},
                {name: edit.radius for name, edit in neurons.items()},
                recipe={},
                seed=0,
                versions=VERSIONS,
            )
            assert described(writer.project) == described(Project.open(self.project.path))
        self.model = Model(edits, self.model.reverted, len(self.past), self.model.blocks)
        self.past.append(self.model.copy())

    @rule(keep=st.sampled_from([None, None, 1, 2, 5]))
    def collect_garbage(self, keep):
        planned = collect(self.project.path, versions=VERSIONS, keep=keep, dry_run=True)
        done = collect(self.project.path, versions=VERSIONS, keep=keep)
        assert planned == done
        if done.merged:
            self.past.append(self.model.copy())
        if keep is not None:
            self.oldest = max(self.oldest, len(self.past) - keep)
        assert done.oldest == self.oldest
        kept = [info.number for info in Project.open(self.project.path).history()]
        assert kept == list(range(self.oldest, len(self.past)))

    @invariant()
    def project_is_what_the_model_says(self):
        project = Project.open(self.project.path)
        self.check(project, self.model)

    @rule(data=st.data())
    def look_at_the_past(self, data):
        number = data.draw(st.integers(self.oldest, len(self.past) - 1))
        self.check(Project.open(self.project.path, at=number), self.past[number])

    def check(self, project, model):
        statuses = model.statuses()
        assert [view.status for view in project.edits()] == statuses
        superseded = model.superseded()
        assert [view.superseded_by for view in project.edits()] == [
            f"e{superseded[n]:06d}" if n in superseded else None for n in range(1, len(statuses) + 1)
        ]
        assert project.edit_counts == {name: statuses.count(name) for name in project.edit_counts}
        clusters = model.clusters()
        assert project.info.counts["clusters"] == len(clusters)
        assert described(project) == {
            c.number: (tuple(f"e{n:06d}" for n in c.members), c.radius) for c in clusters
        }
        key_map = project.key_map
        assert model.key_map == (key_map and key_map.settings["at"])
        assert key_map is None or np.array_equal(key_map.arrays["W"], np.full((2, 3), model.key_map))
        check_nearest(project, clusters, model, GRID)
        tokens = project.tokens(project.statuses())
        assert all(map(same_tokens, tokens, [edit.tokens for edit in model.edits]))

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


@pytest.mark.filterwarnings("ignore::melo_store.errors.StoreWarning")  # the graph is too small to be saved
@pytest.mark.parametrize("graph_from", [1000, 3])
def test_a_project_is_what_its_edits_make_of_it(graph_from, quick_disk, monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", graph_from)
    monkeypatch.setattr(merge_plan, "MANY", 2)
    History.TestCase.settings = settings(
        max_examples=12, stateful_step_count=12, phases=[Phase.reuse, Phase.generate]
    )
    History.TestCase().runTest()


def test_what_a_revert_took_is_as_if_it_had_never_been(project, make):
    edits = [make.edit(f"q{at}", label=(at % 2,), radius=9.0) for at in range(20)]
    other = make.project(project.path.parent / "other")
    for part in (edits[:10], edits[10:]):
        make.commit(project, part)
        make.commit(other, [edit for edit in part if edit is not edits[4] and edit is not edits[13]])
    with open_writer(project) as writer:
        info = writer.revert(["e000005", "e000014"], versions=make.versions, command="melo revert")
    assert (info.action, info.detail, info.command) == (
        "revert",
        {"reverted": ["e000005", "e000014"]},
        "melo revert",
    )
    names = {view.prompt: view.edit_id for view in Project.open(other.path).edits()}
    keys = np.concatenate([np.stack([edit.key for edit in edits]), [make.key() for _ in range(100)]])
    mine, theirs = make.lookup(Project.open(project.path), keys), make.lookup(Project.open(other.path), keys)
    prompts = {view.edit_id: view.prompt for view in Project.open(project.path).edits()}
    for one, two in zip(mine, theirs, strict=True):
        for a, b in ((one.fired, two.fired), (one.nearest, two.nearest)):
            assert (a is None) == (b is None)
            if a is not None:
                assert names[prompts[a.edit_id]] == b.edit_id
                assert (a.distance, a.radius, a.center_distance) == (b.distance, b.radius, b.center_distance)


@pytest.mark.parametrize("graph_from", [1000, 8])
def test_a_revert_restores_what_was_near(project, make, monkeypatch, graph_from):
    """Neurons that came, and those that they superseded, in the same writer and in a new process."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", graph_from)
    edits = [make.edit(f"q{at}", label=(at % 2,), radius=make.near(at)) for at in range(30)]
    make.commit(project, edits)
    keys = np.stack([*(edit.key for edit in edits), *(make.key() for _ in range(30))])
    with open_writer(project) as writer:
        before = writer.project.nearest(keys)
        again = [make.edit(f"q{at}", label=(at % 3,), key=make.key(), radius=4.0) for at in range(0, 40, 3)]
        make.commit_with(writer, again)
        assert writer.project.nearest(keys) != before
        writer.revert([f"e{at:06d}" for at in range(31, 45)], versions=make.versions)
        assert writer.project.nearest(keys) == before
    assert Project.open(project.path).nearest(keys) == before
    assert verify(project.path) == []


def test_a_revert_of_the_newer_brings_the_older_back(project, make):
    one = make.edit("same", label=(1,))
    make.commit(project, [one])
    make.commit(project, [make.edit("same", label=(2,))])
    with open_writer(project) as writer:
        writer.revert(["e000002"], versions=make.versions)
    again = Project.open(project.path)
    assert [view.status for view in again.edits()] == ["live", "reverted"]
    assert make.lookup(again, one.key[None])[0].fired.edit_id == "e000001"
    assert [view.status for view in Project.open(project.path, at=2).edits()] == ["superseded", "live"]


@pytest.mark.parametrize("covered", [False, True])
def test_a_revert_does_not_bring_back_what_another_edit_replaces_too(covered, project, make):
    with open_writer(project) as writer:
        make.commit_with(writer, [make.edit("a", label=(1,))])
        make.commit_with(writer, [make.edit("a", label=(2,))])
        make.commit_with(writer, [make.edit(" a", label=(3,))])
        if covered:
            make.commit_with(writer, [make.edit("a", label=(4,))])
        writer.revert(["e000002"], versions=make.versions)
        view = writer.project.edit("e000001")
    assert (view.status, view.superseded_by) == ("superseded", "e000003")


def test_reverting_twice_makes_no_second_snapshot(project, make):
    make.commit(project, make.edits(2))
    with open_writer(project) as writer:
        first = writer.revert(["e000001"], versions=make.versions)
        assert writer.revert(["e000001"], versions=make.versions) == first
        assert writer.revert_to(2, versions=make.versions) == first
        assert writer.project.snapshot == 2


def test_a_revert_of_something_unknown_changes_nothing(project, make):
    make.commit(project, make.edits(2))
    with open_writer(project) as writer:
        with pytest.raises(UnknownEditError):
            writer.revert(["e000001", "e000099"], versions=make.versions)
        with pytest.raises(UnknownEditError):
            writer.revert_to(9, versions=make.versions)
    assert Project.open(project.path).snapshot == 1


def test_edits_go_on_after_going_back(project, make):
    make.commit(project, make.edits(3))
    make.commit(project, make.edits(3, "later"))
    with open_writer(project) as writer:
        writer.revert_to(0, versions=make.versions)
        assert writer.project.edit_counts["live"] == 0
        fresh = make.edit("question 1")
        make.commit_with(writer, [fresh])
    again = Project.open(project.path)
    assert again.edit("e000007").record.supersedes == ()
    assert again.edit_counts == {"live": 1, "superseded": 0, "reverted": 6, "already_right": 0, "failed": 0}
    assert make.lookup(again, fresh.key[None])[0].fired.block == "b000003"


def test_the_shim_of_the_disk_is_in_force(quick_disk):
    assert type(file_io.disk) is not file_io.Disk
