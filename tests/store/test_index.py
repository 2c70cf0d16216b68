"""The index of centers: it misses none within a distance, whatever the sketches, and finds near ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import index, sketch
from store.index import CenterIndex, Matrix
from store.sketch import Sketch, lower_bounds

DIM = 150


def points(random, count, *, fills=8, offset=0.0, scale=1.0):
    """Keys that fill few of their dimensions, float32 [count, DIM]."""
    map_ = np.random.default_rng(7).normal(size=(fills, DIM))
    rows = random.normal(size=(count, fills)) @ map_ + random.normal(size=(count, DIM)) * 0.1 + offset
    return (scale * rows).astype(np.float32)


def far(one, other):
    """L2 distances [n, m] in float64."""
    return np.linalg.norm(one[:, None].astype(np.float64) - other[None].astype(np.float64), axis=2)


class Filled:
    """An index over centers that a dictionary holds."""

    def __init__(self):
        self.centers = {}
        self.index = CenterIndex(
            Matrix(DIM), lambda labels: np.stack([self.centers[n] for n in labels.tolist()])
        )

    def add(self, rows):
        first = max(self.centers, default=0) + 1
        labels = np.arange(first, first + len(rows))
        self.centers.update(zip(labels.tolist(), rows, strict=True))
        self.index.add(labels)
        return labels

    def remove(self, labels):
        self.index.remove(labels)
        for label in labels.tolist():
            del self.centers[label]

    def within(self, asked, distances):
        found = self.index.within(self.index.sketch(asked), distances)
        assert (np.diff(found.row) >= 0).all()
        return found

    def check(self, asked, distances):
        """Nothing within the distances is missed, and no bound is too high."""
        found = self.within(asked, distances)
        labels = np.array(list(self.centers))
        apart = far(asked, np.stack(list(self.centers.values())))
        pairs = set(zip(found.row.tolist(), found.labels.tolist(), strict=True))
        for row, at in zip(*np.nonzero(apart <= distances[:, None]), strict=True):
            assert (row, labels[at]) in pairs
        where = {label: at for at, label in enumerate(labels.tolist())}
        true = apart[found.row, [where[label] for label in found.labels.tolist()]]
        assert (found.lower <= true).all()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Sketches from 40 centers on."""
    monkeypatch.setattr(index, "GRAPH_FROM", 40)


@settings(max_examples=40)
@given(st.integers(0, 1 << 30), st.sampled_from([1e-3, 1.0, 1e5]), st.sampled_from([0.0, 3.0, 1e4]))
def test_sketches_never_claim_too_large_a_distance(seed, scale, offset):
    random = np.random.default_rng(seed)
    learnt = Sketch.learn(points(random, int(random.integers(1, 90)), scale=scale))
    asked = points(random, 20, fills=3, offset=offset, scale=scale)
    asked[1] = np.nextafter(asked[0], np.float32(np.inf))
    sketches = learnt.of(asked)
    norms = np.linalg.norm(sketches.astype(np.float64), axis=1)
    for at in range(20):
        apart = np.linalg.norm(sketches.astype(np.float64) - sketches[at], axis=1)
        for side in (norms, norms[at]):
            assert (lower_bounds(apart, side) <= far(asked[at : at + 1], asked)[0]).all()


def test_a_sketch_outlives_its_text():
    learnt = Sketch.learn(points(np.random.default_rng(0), 50))
    again = Sketch.from_text(learnt.text(), DIM)
    assert np.array_equal(again.origin, learnt.origin)
    assert np.array_equal(again.directions, learnt.directions)
    assert (again.size, learnt.directions.dtype) == (sketch.SIZE, np.float64)
    for broken in ("", "?", learnt.text()[:-8], Sketch(learnt.origin, learnt.directions * np.nan).text()):
        with pytest.raises(ValueError):
            Sketch.from_text(broken, DIM)


@settings(max_examples=40)
@given(st.integers(0, 1 << 30))
def test_no_center_within_a_distance_is_missed(seed):
    random = np.random.default_rng(seed)
    filled = Filled()
    for _ in range(4):
        fills, offset = int(random.integers(1, 100)), random.choice([0.0, 2.0, 500.0])
        labels = filled.add(points(random, int(random.integers(1, 60)), fills=fills, offset=offset))
        asked = np.concatenate([points(random, 5), list(filled.centers.values())[:5]])
        apart = far(asked, np.stack(list(filled.centers.values())))
        for distances in (apart.min(axis=1), np.median(apart, axis=1), np.full(len(asked), 1e300)):
            filled.check(asked, distances)
        if random.random() < 0.5:
            filled.index.settle()
        if len(filled.centers) > len(labels):
            filled.remove(random.choice(labels, max(1, len(labels) // 2), replace=False))


@pytest.mark.parametrize("settled", [0, 100, 300])
def test_the_nearest_centers_are_found_settled_or_not(settled):
    random = np.random.default_rng(3)
    filled = Filled()
    rows = points(random, 300)
    for start in range(0, 300, 50):
        filled.add(rows[start : start + 50])
        if start + 50 == settled:
            filled.index.settle()
    gone = np.arange(90, 120)
    filled.remove(gone)
    asked = points(random, 50)
    apart = far(asked, rows)
    apart[:, gone - 1] = np.inf
    found = filled.index.nearest(filled.index.sketch(asked), 8)
    assert not set(found.labels.tolist()) & set(gone.tolist())
    for row in range(50):
        assert 1 + int(apart[row].argmin()) in found.labels[found.row == row]
    assert (found.lower <= apart[found.row, found.labels - 1]).all()


def test_marks_of_deletion_stand_in_no_ones_way():
    random = np.random.default_rng(4)
    filled = Filled()
    labels = filled.add(points(random, 400))
    filled.index.settle()
    filled.remove(labels[5:])
    for _ in range(2):
        found = filled.index.nearest(filled.index.sketch(points(random, 3)), 8)
        assert set(found.labels.tolist()) == {1, 2, 3, 4, 5}
        filled.index.settle()
    assert filled.index.sketched.graph.hidden == set(), "settling leaves them behind"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [3e38, np.nan])
def test_one_impossible_center_hides_no_other(value):
    random = np.random.default_rng(6)
    rows = points(random, 100)
    rows[0, 3] = value
    filled = Filled()
    filled.add(rows)
    filled.index.settle()
    for at in range(1, 100):
        assert at + 1 in filled.within(rows[at : at + 1], np.ones(1)).labels


def test_centers_elsewhere_get_directions_of_their_own(monkeypatch):
    monkeypatch.setattr(sketch, "SIZE", 8)
    random = np.random.default_rng(5)
    rows, other = points(random, 60), np.zeros((800, DIM), np.float32)
    rows[:, -6:] = 0
    other[:, -6:] = random.normal(size=(800, 6)) * 10
    filled = Filled()
    filled.add(rows)
    filled.add(other)
    first = filled.index.sketched.sketch
    asked, distances = other[:20], np.full(20, 1.0)
    assert len(filled.within(asked, distances).row) >= 20 * 800, (
        "the first directions tell none of them apart"
    )
    filled.check(asked, distances)
    filled.index.settle()
    assert len(filled.within(asked, distances).row) == 20
    filled.check(asked, distances)
    again = filled.index.sketched.sketch
    assert again is not first
    filled.index.settle()
    assert filled.index.sketched.sketch is again, "once is enough"
