"""What the store's tests share: makers of projects, edits and blocks, and a disk that does not sync.

With ``--torture`` (`make torture`) the suites of crashes, races and damage run in full, and tell at the end
how much was tried.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from melo_store.format import file_io
from melo_store.project import Project
from melo_store.records import BaseReference, LoraSlice, Neighbour, NewEdit
from melo_store.writer import open_writer

TALLY = pytest.StashKey[Counter]()


def pytest_addoption(parser):
    parser.addoption("--torture", action="store_true", help="run the crash, race and damage suites in full")


def pytest_configure(config):
    config.stash[TALLY] = Counter()


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--torture", default=False):
        tally = config.stash[TALLY]
        failed = terminalreporter.getreports("failed") + terminalreporter.getreports("error")
        terminalreporter.section("torture")
        for name, count in sorted(tally.items()):
            terminalreporter.write_line(f"{count:7,} {name}")
        terminalreporter.write_line("something was lost" if failed else "nothing was lost")


@pytest.fixture
def torture(request):
    """Whether the suites run in full."""
    return request.config.getoption("--torture", default=False)


@pytest.fixture
def tally(request):
    """Counts what was tried, by name."""
    return request.config.stash[TALLY]


RECIPE = {"name": "unit", "key": {"radius": 1.0}}
BASE = BaseReference("some/model", "main", {"config": "c" * 64, "weights": "w" * 64})


class QuickDisk(file_io.Disk):
    """Writes without waiting for the disk, for tests that commit hundreds of times."""

    def fsync(self, handle):
        pass


@pytest.fixture
def quick_disk(monkeypatch):
    monkeypatch.setattr(file_io, "disk", QuickDisk())


@dataclass(frozen=True)
class Route:
    """What the paper's rule makes of the neurons near a key: whose ball holds it, and the nearest."""

    held: Neighbour | None
    nearest: Neighbour | None

    @property
    def fired(self):
        return self.held if self.held is not None and self.held.block is not None else None


class Maker:
    """Makes what the tests hand to the store; numbers come from one seed."""

    def __init__(self, dim=6):
        self.dim = dim
        self.random = np.random.default_rng(0)
        self.token_random = np.random.default_rng(1)
        self.versions = {"torch": "2.13"}

    def project(self, path, **changes):
        given = {"name": "unit", "base": BASE, "recipe": RECIPE, "seed": 7, "versions": self.versions}
        return Project.create(path, **{**given, **changes})

    def key(self, scale=10.0):
        return (self.random.normal(size=self.dim) * scale).astype(np.float32)

    def tokens(self, count=3, width=5):
        return self.token_random.normal(size=(count, width)).astype(np.float16)

    def slices(self, rank=2):
        def part(inner, outer):
            A = self.random.normal(size=(rank, inner)).astype(np.float32)
            B = self.random.normal(size=(outer, rank)).astype(np.float32)
            return LoraSlice(A, B, 20.0 / rank)

        return {"encoder.wi": part(4, 8), "encoder.wo": part(8, 4)}

    def edit(self, prompt, **changes):
        given = {"target": "a", "label": (1, 2), "key": self.key(), "block": "new", "radius": 1.0}
        given["tokens"] = self.tokens() if changes.get("key", ()) is not None else None
        return NewEdit(prompt=prompt, **{**given, **changes})

    def commit(self, project, edits, blocks=None, **changes):
        """One commit of edits that share a block, in a writer of its own."""
        with open_writer(project) as writer:
            return self.commit_with(writer, edits, blocks, **changes)

    def commit_with(self, writer, edits, blocks=None, **changes):
        staged = writer.stage(edits, {"new": self.slices()} if blocks is None else blocks)
        given = {"recipe": RECIPE, "seed": 7, "versions": self.versions}
        return staged.commit(**{**given, **changes})

    def near(self, at):
        """A radius for every third edit alone; the others stand in no cluster."""
        return 4.0 if at % 3 == 0 else None

    def lookup(self, source, keys, k=8):
        """The routes of keys, by the paper's rule."""
        return [
            Route(
                next(
                    (one for one in near if one.radius is not None and one.center_distance <= one.radius),
                    None,
                ),
                near[0] if near else None,
            )
            for near in source.nearest(keys, k)
        ]

    def edits(self, count, prefix="question"):
        return [self.edit(f"{prefix} {at}") for at in range(count)]


@pytest.fixture
def make():
    return Maker()


@pytest.fixture
def project(make, tmp_path):
    return make.project(tmp_path / "project")


def _copy_of(name, tmp_path):
    shutil.copytree(Path(__file__).parent / "fixtures" / name, tmp_path / name)
    return Project.open(tmp_path / name)


@pytest.fixture
def format1(tmp_path):
    """A copy of a project that melo 0.1.0 wrote."""
    return _copy_of("format1", tmp_path)


@pytest.fixture
def format2(tmp_path):
    """A copy of a project that melo 0.2.0 wrote."""
    return _copy_of("format2", tmp_path)


@pytest.fixture
def format3(tmp_path):
    """A copy of a project that melo 0.3.0 wrote."""
    return _copy_of("format3", tmp_path)
