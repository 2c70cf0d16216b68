"""The rules of clusters, held against a plain model and against what must hold whatever is inserted."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from melo_store.clusters.cluster_set import ClusterSet, changed
from melo_store.clusters.rules import Cluster, Neuron, distance, insert, rebuild

DIM = 2


class Keys:
    """Neurons by number, as the rules ask for them."""

    def __init__(self, neurons):
        self.by_number = {neuron.number: neuron for neuron in neurons}

    def keys(self, numbers):
        return np.array([self.by_number[int(n)].key for n in numbers], np.float32).reshape(-1, DIM)

    def radii(self, numbers):
        return np.array([self.by_number[int(n)].radius for n in numbers])

    def neuron(self, number):
        return self.by_number[number]


def subsets(numbers):
    return st.sets(st.sampled_from(numbers)) if numbers else st.just(set())


def filled(neurons, keys=None):
    space = ClusterSet(DIM, keys or Keys(neurons))
    for neuron in neurons:
        insert(space, neuron)
    return space


def plain(space):
    """Everything about a space that may be compared, bit for bit."""
    return sorted(
        (c.members, c.label, c.center.tobytes(), c.radius, c.max_member_distance, c.influence_radius)
        for c in space.clusters()
    )


def far(a, b):
    """Distance, written another way than in the store."""
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)))


points = npst.arrays(np.float32, DIM, elements=st.floats(-5, 5, width=32))


def crowd(seed, largest=40):
    """Crowded enough that joins, joins refused, shrunk balls and members moving out all happen.

    Some keys lie on a grid, so that distances tie and balls just touch; some coincide, of one label or two.
    """
    random = np.random.default_rng(seed)
    width = random.choice([2.0, 5.0, 12.0])
    labels = random.integers(1, 4)
    neurons_so_far: list[Neuron] = []
    for number in range(1, random.integers(2, largest) + 1):
        key = random.normal(size=DIM) * width
        if neurons_so_far and random.random() < 0.4:
            key = neurons_so_far[random.integers(len(neurons_so_far))].key + random.normal(size=DIM) * 0.4
        if random.random() < 0.3:
            key = np.round(key)
        if neurons_so_far and random.random() < 0.15:
            key = neurons_so_far[random.integers(len(neurons_so_far))].key
        label = (int(random.integers(labels)), 7)
        radius = float(random.choice([0.0, 0.5, 1.0, 2.0]))
        neurons_so_far.append(Neuron(number, key.astype(np.float32), label, radius))
    return neurons_so_far


def neurons():
    return st.integers(0, 1 << 32).map(crowd)


@settings(max_examples=100)
@given(neurons())
def test_what_always_holds(given_neurons):
    space = filled(given_neurons)
    clusters = list(space.clusters())
    by_number = {neuron.number: neuron for neuron in given_neurons}

    members = [member for cluster in clusters for member in cluster.members]
    assert sorted(members) == sorted(by_number), "no neuron is lost, none is there twice"
    for cluster in clusters:
        own = [by_number[member] for member in cluster.members]
        assert {neuron.label for neuron in own} == {cluster.label}
        assert cluster.number == min(cluster.members)
        max_member_distance = max(far(neuron.key, cluster.center) for neuron in own)
        assert max_member_distance <= cluster.radius + 1e-9
        assert cluster.max_member_distance == pytest.approx(max_member_distance, abs=1e-12)
        near_rivals = [n for n in given_neurons if n.label != cluster.label]
        if not near_rivals:
            assert cluster.radius >= max(neuron.radius for neuron in own)
    for cluster, neuron in itertools.product(clusters, given_neurons):
        if cluster.label != neuron.label:
            assert cluster.radius <= far(cluster.center, neuron.key) + 1e-9


@settings(max_examples=60)
@given(neurons())
def test_the_same_sequence_gives_the_same_clusters(given_neurons):
    assert plain(filled(given_neurons)) == plain(filled(given_neurons))


@settings(max_examples=60)
@given(neurons(), points)
def test_search_finds_every_ball_that_holds_a_point_or_has_a_member_near_it(given_neurons, point):
    space = filled(given_neurons)
    for radius in (0.0, 1.0, 3.0):
        touching = {cluster.number for cluster, _ in space.touching(point, radius)}
        limits = (
            (c.number, max(c.radius, c.max_member_distance + radius), distance(point, c.center))
            for c in space.clusters()
        )
        assert touching == {number for number, limit, away in limits if away <= limit}


@dataclass
class PlainCluster:
    """A cluster of the plain model."""

    members: list[int]
    center: np.ndarray
    radius: float
    label: tuple[int, ...]


class PlainModel:
    """The rules once more, over a Python list and without a search, a reach or a layer."""

    def __init__(self):
        self.clusters: list[PlainCluster] = []
        self.neurons: dict[int, Neuron] = {}

    def insert(self, neuron):
        self.neurons[neuron.number] = neuron
        near = [c for c in self.clusters if self.meets(c, neuron)]
        near.sort(key=lambda c: (far(neuron.key, c.center), min(c.members)))
        if not (near and near[0].label == neuron.label and self.join(near[0], neuron)):
            self.alone(neuron)
        for rival in near:
            if rival.label != neuron.label:
                self.cut(rival, far(neuron.key, rival.center))

    def meets(self, cluster, neuron):
        if far(neuron.key, cluster.center) <= cluster.radius:
            return True
        return any(far(neuron.key, self.neurons[m].key) <= neuron.radius for m in cluster.members)

    def room(self, center, label):
        others = [n for c in self.clusters if c.label != label for n in c.members]
        return min((far(center, self.neurons[n].key) for n in others), default=np.inf)

    def join(self, cluster, neuron):
        members = [*cluster.members, neuron.number]
        keys = [self.neurons[m].key for m in members]
        center = np.mean(np.array(keys, np.float64), axis=0).astype(np.float32)
        max_member_distance = max(far(key, center) for key in keys)
        radius = max(max_member_distance, *(self.neurons[m].radius for m in members))
        room = self.room(center, neuron.label)
        if max_member_distance > room:
            return False
        cluster.members, cluster.center, cluster.radius = members, center, min(radius, room)
        return True

    def alone(self, neuron):
        radius = min(neuron.radius, self.room(neuron.key, neuron.label))
        self.clusters.append(PlainCluster([neuron.number], neuron.key, radius, neuron.label))

    def cut(self, rival, limit):
        if rival.radius <= limit:
            return
        out = [m for m in rival.members if far(self.neurons[m].key, rival.center) > limit]
        rival.members = [m for m in rival.members if m not in out]
        rival.radius = limit
        if not rival.members:
            self.clusters.remove(rival)
        for loser in out:
            self.alone(self.neurons[loser])

    def known(self):
        return sorted((tuple(sorted(c.members)), c.radius, tuple(c.center.tolist())) for c in self.clusters)


@settings(max_examples=100)
@given(neurons())
def test_clusters_are_those_of_the_plain_model(given_neurons):
    model = PlainModel()
    for neuron in given_neurons:
        model.insert(neuron)
    space = filled(given_neurons)
    mine = sorted((c.members, c.radius, tuple(c.center.tolist())) for c in space.clusters())
    for (members, radius, center), (theirs, their_radius, their_center) in zip(
        mine, model.known(), strict=True
    ):
        assert members == theirs
        assert radius == pytest.approx(their_radius, abs=1e-9)
        assert center == pytest.approx(their_center, abs=1e-6)


@settings(max_examples=100)
@given(neurons(), st.data())
def test_a_rebuild_forgets_and_remembers_without_a_trace(given_neurons, data):
    keys = Keys(given_neurons)
    every = [neuron.number for neuron in given_neurons]
    out = data.draw(subsets(every))
    back = data.draw(subsets(sorted(out)))
    space = filled(given_neurons, keys)

    def fresh():
        return ClusterSet(DIM, keys)

    rebuild(space, fresh, out, [])
    assert plain(space) == plain(filled([n for n in given_neurons if n.number not in out], keys))
    rebuild(space, fresh, [], [keys.neuron(number) for number in sorted(back, reverse=True)])
    gone = out - back
    assert plain(space) == plain(filled([n for n in given_neurons if n.number not in gone], keys))


FAR_TRACES = {
    "a ball that grows once the other is gone meets what it never met": (
        [("a", 0, 0, 1), ("b", 0.5, 0, 0.1), ("a", 0.9, 0, 1), ("a", 1.4, 0, 0.05)],
        2,
    ),
    "a join that a nearer ball forbade is made": (
        [("a", 0, 0, 1), ("b", 0.45, 0.1, 0.1), ("a", 0.9, 0, 1)],
        2,
    ),
    "a center has moved away from where the two met": (
        [("a", 0, 0, 1), ("b", 0.5, 0, 0.1), ("a", 0.9, 0, 0.45), ("a", -0.99, 0, 1), ("a", -1.4, 0, 1)],
        2,
    ),
    "the cluster that met it is no more": (
        [("a", 0, 0, 0.4), ("a", 0.38, 0, 0.4), ("d", 0.19, 0.1, 0.01)],
        3,
    ),
}


@pytest.mark.parametrize("trace", FAR_TRACES)
def test_a_rebuild_follows_traces_that_can_no_longer_be_seen(trace):
    rows, gone = FAR_TRACES[trace]
    every = [
        Neuron(number, np.array([x, y], np.float32), (ord(label),), radius)
        for number, (label, x, y, radius) in enumerate(rows, 1)
    ]
    keys = Keys(every)
    space = filled(every, keys)
    left = {(c.members, c.radius) for c in space.clusters() if c.members != (gone,)}
    rebuild(space, lambda: ClusterSet(DIM, keys), [gone], [])
    assert plain(space) == plain(filled([n for n in every if n.number != gone], keys))
    assert {(c.members, c.radius) for c in space.clusters()} != left, (
        "the removal changes more than its own cluster"
    )


@settings(max_examples=60)
@given(neurons(), st.data())
def test_a_changed_set_is_what_a_commit_makes(given_neurons, data):
    keys = Keys(given_neurons)
    cut = data.draw(st.integers(0, len(given_neurons)))
    before = filled(given_neurons[:cut], keys)
    untouched = plain(before)
    out = data.draw(subsets([neuron.number for neuron in given_neurons[:cut]]))
    after = changed(before, keys, out, [], given_neurons[cut:])
    expected = filled([n for n in given_neurons if n.number not in out], keys)
    assert plain(after) == plain(expected)
    assert after.owners == expected.owners
    assert plain(before) == untouched, "nothing happens before a commit"
    delta = after.since(before)
    clusters = {
        cluster.number: cluster for cluster in before.clusters() if cluster.number not in delta.dropped
    }
    clusters |= {cluster.number: cluster for cluster in delta.put}
    assert sorted(clusters) == sorted(cluster.number for cluster in after.clusters())
    assert all(cluster.same_as(after.get(number)) for number, cluster in clusters.items())
    assert not after.since(expected) and not before.since(before)
    assert changed(before, keys, [], [], []) is before


def two(label=1, key=(0.0, 0.0), number=1, radius=1.0):
    return Neuron(number, np.array(key, np.float32), (label,), radius)


def radii_of(neurons):
    return {c.members: c.radius for c in filled(neurons).clusters()}


def test_balls_of_two_labels_reach_up_to_each_other_and_no_farther():
    assert radii_of([two(radius=5.0), two(label=2, key=(1.0, 0.0), number=2, radius=3.0)]) == {
        (1,): 1.0,
        (2,): 1.0,
    }


def test_every_ball_that_holds_the_new_key_is_cut_at_it():
    three = [
        two(radius=3.0),
        two(key=(4.0, 0.0), number=2, radius=1.5),
        two(label=2, key=(1.5, 0.0), number=3),
    ]
    assert radii_of(three) == {(1,): 1.5, (2,): 1.5, (3,): 1.0}


def test_a_member_outside_the_cut_ball_moves_into_its_own():
    members = [two(), two(key=(1.0, 0.0), number=2), two(key=(0.5, 0.8), number=3, radius=0.6)]
    assert list(radii_of(members)) == [(1, 2, 3)]
    cut = radii_of([*members, two(label=2, key=(0.5, -0.2), number=4)])
    assert set(cut) == {(1,), (2,), (3,), (4,)}
    assert cut[3,] == pytest.approx(0.6)


def test_a_join_that_would_swallow_another_label_is_not_made():
    members = [two(), two(label=2, key=(0.45, 0.1), number=2, radius=0.1), two(key=(0.9, 0.0), number=3)]
    assert set(radii_of(members)) == {(1,), (2,), (3,)}


def test_two_labels_at_one_key_both_keep_it_as_a_point():
    three = [two(radius=3.0), two(label=2, number=2, radius=2.0), two(number=3, radius=1.0)]
    assert radii_of(three) == {(1, 3): 0.0, (2,): 0.0}
    beside = [two(key=(1.0, 0.0), radius=2.0), *(replace(one, number=one.number + 1) for one in three)]
    assert radii_of(beside) == {(1, 2): 0.5, (3,): 0.0, (4,): 0.0}


def test_a_cluster_knows_itself():
    one = Cluster((1,), (1,), np.zeros(DIM, np.float32), 1.0, 0.0, 1.0)
    assert not one.same_as(Cluster((1,), (1,), np.ones(DIM, np.float32), 1.0, 0.0, 1.0))
