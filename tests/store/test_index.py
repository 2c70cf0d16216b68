"""The index of neurons: exact as a matrix, all but exact as a graph, and only ever of what is live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_store.index import neuron_index
from melo_store.index.neuron_index import Graph, NeuronIndex


class Keys:
    """Keys float32 [n, d] of neurons 1 to n."""

    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float32)
        self.every = np.arange(1, len(rows) + 1)

    def of(self, numbers):
        return self.rows[numbers - 1]

    def index(self, live=None):
        return NeuronIndex(self.rows.shape[1], self.every if live is None else live, self.of)

    def nearest(self, points, count, live=None):
        """By brute force: numbers and distances, of equally near ones the newest first."""
        live = self.every if live is None else live
        results = []
        for point in points.astype(np.float64):
            distances = np.linalg.norm(self.of(live) - point, axis=1)
            order = np.lexsort((-live, distances))[:count]
            results.append((live[order].tolist(), distances[order]))
        return results


def search(made, points, count):
    result = made.nearest(points, count)
    assert (np.diff(result.row) >= 0).all()
    return [
        (result.number[result.row == row].tolist(), result.distance[result.row == row])
        for row in range(len(points))
    ]


def check(made, keys, points, count, live=None):
    """The distances are those of brute force, each its neuron's; of equally near ones the newest is first."""
    for point, (numbers, distances), (expected, expected_distances) in zip(
        points, search(made, points, count), keys.nearest(points, count, live), strict=True
    ):
        assert len({*numbers}) == len(numbers) == len(expected)
        assert distances == pytest.approx(expected_distances, rel=1e-9, abs=1e-12)
        own = np.linalg.norm(keys.of(np.array(numbers, np.int64)) - point.astype(np.float64), axis=1)
        assert distances == pytest.approx(own, rel=1e-9, abs=1e-12)
        assert {*numbers} <= {*(keys.every if live is None else live).tolist()}
        order = list(zip(distances.tolist(), [-number for number in numbers], strict=True))
        assert order == sorted(order)
        if len(expected_distances) and expected_distances[0] == 0.0:
            assert numbers[0] == expected[0], "of equal keys the newest"


def crowd(random, count, dim=6):
    """Some keys coincide, some lie on a grid so that distances tie, some far from the origin or at it."""
    rows = random.normal(size=(count, dim)) * random.choice([1e-3, 1.0, 1e4]) + random.choice(
        [0.0, 10.0, 1e4]
    )
    for at in range(1, count):
        kind = random.random()
        if kind < 0.2:
            rows[at] = rows[random.integers(at)]
        elif kind < 0.4:
            rows[at] = np.round(rows[at])
    return rows


@settings(max_examples=60)
@given(st.integers(0, 1 << 30), st.booleans())
def test_it_gives_what_brute_force_gives(seed, as_graph):
    """A graph of so few neurons meets them all."""
    random = np.random.default_rng(seed)
    keys = Keys(crowd(random, int(random.integers(1, 80))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neuron_index, "GRAPH_FROM", 5 if as_graph else 1000)
        made = keys.index()
        made.flush()
        assert (made.graph is not None) == (as_graph and len(keys.rows) >= 5)
        points = np.concatenate([keys.rows[:20], crowd(random, 9).astype(np.float32)])
        for count in (1, 3, 8, 200):
            check(made, keys, points, count)
        for point in points[:3]:
            check(made, keys, point[None], 3)


@settings(max_examples=60)
@given(st.integers(0, 1 << 30))
def test_it_holds_what_is_live_and_nothing_else(seed):
    """Through any changes, flushed or only staged; an index that was staged over stays as it was."""
    random = np.random.default_rng(seed)
    keys = Keys(crowd(random, 70))
    points = np.concatenate([keys.rows[::3], crowd(random, 9).astype(np.float32)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neuron_index, "GRAPH_FROM", 8)
        live = keys.every[: int(random.integers(1, 40))]
        made = keys.index(live)
        for _ in range(8):
            made.flush()
            assert (made.graph is not None) == (len(live) >= 8)
            check(made, keys, points, 8, live)
            after = np.sort(random.choice(keys.every, int(random.integers(1, 70)), replace=False))
            staged = made.over(after, keys.of)
            check(staged, keys, points, 8, after)
            check(made, keys, points, 8, live)
            live, made = after, staged


def clustered(random, count, dim=256):
    """Unit keys as questions make them: subjects times relations, and some rephrases of each."""
    subjects, relations = random.normal(size=(count // 10, dim)), 0.7 * random.normal(size=(40, dim))
    rows = subjects[random.integers(len(subjects), size=count)] + relations[random.integers(40, size=count)]
    rows += 0.3 * random.normal(size=rows.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_graph_finds_99_in_100_of_the_eight_nearest():
    random = np.random.default_rng(0)
    keys = Keys(clustered(random, 6000, dim=64))
    made = keys.index()
    assert made.flush() and made.graph is not None
    points = np.float32(keys.rows[:400] + 0.02 * random.normal(size=(400, 64)))
    met = wanted = 0
    for (numbers, distances), (expected, _) in zip(
        search(made, points, 8), keys.nearest(points, 8), strict=True
    ):
        assert len(numbers) == 8 and (np.diff(distances) >= 0).all()
        met += len({*numbers} & {*expected})
        wanted += 8
    assert met / wanted >= 0.99


def test_a_key_that_a_neuron_has_is_found_however_unlike_the_others(monkeypatch, tmp_path):
    """Others that join crowd out what leads to it, which a search of the graph alone then misses."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 400)
    monkeypatch.setattr(neuron_index, "SEARCH_EF", 4)
    monkeypatch.setattr(neuron_index, "STRAY_EF", 2)
    random = np.random.default_rng(3)
    unlike = random.normal(size=(50, 32))
    alike = random.normal(size=(20, 32))[np.arange(1950) % 20] + 0.2 * random.normal(size=(1950, 32))
    keys = Keys(np.concatenate([unlike, alike]))
    made = keys.index(keys.every[:500])
    made.flush()
    for count in range(1000, 2001, 500):
        made = made.over(keys.every[:count], keys.of)
        assert made.flush()
        found = made.nearest(keys.rows[:count], 1)
        assert found.number.tolist() == keys.every[:count].tolist() and not found.distance.any()
    strays = made.graph.strays.tolist()
    assert 0 < len(strays) < 400 and not {*strays} & {*made.graph.numbers().tolist()}
    made.graph.save(tmp_path / "g.hnsw")
    loaded = Graph.load(tmp_path / "g.hnsw", 32, made.graph.marked, made.graph.strays)
    again = NeuronIndex(32, keys.every, keys.of, loaded)
    assert not again.flush(), "strays alone are no reason to build"
    assert search(again, keys.rows[:50], 8)[0][0] == search(made, keys.rows[:50], 8)[0][0]
    monkeypatch.setattr(Graph, "set_strays_aside", lambda graph: None)
    alone = keys.index()
    alone.flush()
    assert alone.nearest(keys.rows, 1).number.tolist() != keys.every.tolist()


def test_marks_of_deletion_stand_in_no_ones_way(monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 20)
    keys = Keys(np.random.default_rng(4).normal(size=(400, 6)))
    made = keys.index()
    made.flush()
    graph = made.graph
    left = keys.every[:200:5]
    staged = made.over(left, keys.of)
    check(staged, keys, keys.rows[:50], 8, left)
    assert not len(graph.marked), "nothing is marked before a commit"
    staged.flush()
    check(staged, keys, keys.rows[:50], 8, left)
    assert staged.graph is not graph and not len(staged.graph.marked), "so many marks are left behind"


def test_what_comes_back_is_unmarked(monkeypatch):
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 8)
    keys = Keys(np.random.default_rng(4).normal(size=(60, 6)))
    made = keys.index()
    made.flush()
    fewer = made.over(keys.every[10:], keys.of)
    assert not fewer.flush()
    assert fewer.graph.marked.tolist() == list(range(1, 11))
    again = fewer.over(keys.every, keys.of)
    check(again, keys, keys.rows, 8)
    assert again.flush()
    assert (len(again.graph.marked), len(again.graph.numbers())) == (0, 60)
    check(again, keys, keys.rows, 8)


def test_a_crowd_of_equal_keys_hides_no_other(monkeypatch):
    """In an HNSW graph a hundred equal keys may be linked to none but each other."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 100)
    rows = np.random.default_rng(5).normal(size=(500, 6))
    rows[50:350] = rows[50]
    keys = Keys(rows)
    made = keys.index()
    made.flush()
    assert len(made.graph.numbers()) == 201
    for count in (8, 400):
        check(made, keys, keys.rows[::7], count)
        check(made, keys, keys.rows[[0, 49, 350, 499]], count)
    fewer = made.over(keys.every[100:], keys.of)
    fewer.flush()
    check(fewer, keys, keys.rows[::7], 8, keys.every[100:])


def test_keys_as_large_as_they_may_be_are_measured():
    keys = Keys(np.random.default_rng(6).normal(size=(50, 300)) * 1e17)
    keys.rows[7] = 9e17
    points = np.concatenate([keys.rows, -keys.rows[:9]])
    check(keys.index(), keys, points, 8)


def test_a_graph_outlives_its_file(tmp_path):
    keys = Keys(np.random.default_rng(7).normal(size=(300, 6)))
    graph = Graph(6)
    graph.add(keys.every[:200], keys.of)
    graph.mark(keys.every[:20])
    size = graph.save(tmp_path / "g.hnsw")
    assert (tmp_path / "g.hnsw").stat().st_size == size
    again = Graph.load(tmp_path / "g.hnsw", 6, graph.marked, graph.strays)
    assert np.array_equal(again.numbers(), keys.every[20:200])
    assert np.array_equal(again.keys(again.numbers()), keys.rows[20:200])
    made = NeuronIndex(6, keys.every, keys.of, again)
    check(made, keys, keys.rows[::5], 8)
