"""Hostile projects: what does not fit gives our own errors and takes no memory, even where checksums fit."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from melo_store.errors import MeloError
from melo_store.format import codec
from melo_store.format.tables import states
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.repair import repair
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.state import State
from melo_store.writer import open_writer

MOST_MEMORY = 256 << 20


@pytest.fixture
def fuzz(torture):
    """How many examples, and no shrinking: what fails is printed as it is."""
    return settings(
        max_examples=400 if torture else 12,
        phases=[Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@pytest.fixture
def full(project, make, quick_disk, monkeypatch):
    """A project whose newest snapshot lists every kind of file, and few of each."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 6)
    with open_writer(project) as writer:
        make.commit_with(writer, [make.edit(f"q{at}", label=(at,), radius=make.near(at)) for at in range(8)])
        make.commit_with(writer, [make.edit("q2", label=(9,)), make.edit("no", status="failed")])
        writer.revert(["e000004"], versions=make.versions)
        names = [name for name in writer.project.statuses() if name != "e000010"]
        keys = {name: make.key() for name in names}
        tokens = {name: make.tokens(at) for at, name in enumerate(names[:5], 1)}
        radii = {name: make.near(at) for at, name in enumerate(names)}
        key_map = KeyMap({"size": 6}, {"W": np.ones((6, 6), np.float32), "b": np.ones(6, np.float32)})
        writer.rekey(key_map, keys, tokens, radii, recipe={}, seed=0, versions=make.versions)
        writer.state.save_index()
    assert verify(project.path) == []
    return project


def signed_again(root, name):
    """Make the checksums of the newest snapshot and the manifest fit a file that was changed."""
    content = (root / name).read_bytes()
    head = json.loads((root / "manifest.json").read_text())
    path = root / f"snapshots/{head['newest']['number']:06d}.json"
    snapshot = json.loads(path.read_text())
    for entry in snapshot["files"]:
        if entry["path"] == name:
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(snapshot).encode()
    path.write_bytes(text)
    head["newest"] |= {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    rest = {key: value for key, value in head.items() if key != "check"}
    check = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (root / "manifest.json").write_text(json.dumps({**rest, "check": check}))


def use(root, make):
    """Everything that a command may do with a project; each step ends well or in an error of our own."""

    def read(project):
        project.edits()
        project.statuses()
        project.nearest(np.zeros((3, 6), np.float32))
        project.tokens(project.statuses())
        for name in project.block_ids():
            project.block(name)
        _ = project.key_map
        project.history()

    def write():
        with open_writer(Project.open(root)) as writer:
            make.commit_with(writer, [make.edit("q5", label=(70,))])
            writer.revert(["e000001", "e000003"], versions=make.versions)
            writer.revert_to(1, versions=make.versions)

    steps = [
        lambda: read(Project.open(root)),
        lambda: verify(root),
        write,
        lambda: collect(root, versions=make.versions, keep=1),
        lambda: repair(root, versions=make.versions),
    ]
    for step in steps:
        try:
            step()
        except MeloError as error:
            assert str(error) and "\n" not in str(error)


def mutated(data, content):
    """A few bytes changed: numbers that a length, an offset or a value may not have."""
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken) - 1))
        size = data.draw(st.sampled_from([1, 4, 8]))
        value = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF, (1 << 60) - 1]) | st.integers(0, (1 << 64) - 1))
        broken[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return bytes(broken[: len(content)])


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_arrow_file_whose_checksum_fits(full, make, tmp_path, fuzz, tally):
    names = sorted(path.relative_to(full.path).as_posix() for path in full.path.glob("*/*.arrow"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @fuzz
    @given(data=st.data())
    def check(data):
        root = tmp_path / "fuzzed"
        shutil.rmtree(root, ignore_errors=True)  # hypothesis may break an example off in the midst of a draw
        shutil.copytree(full.path, root)
        name = data.draw(
            st.sampled_from([name for name in names if "4." in name or name.startswith("blocks")])
        )
        (root / name).write_bytes(mutated(data, (root / name).read_bytes()))
        signed_again(root, name)
        try:
            use(root, make)
        finally:
            shutil.rmtree(root)
        tally["fuzzed files"] += 1

    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MOST_MEMORY
    assert pa.default_memory_pool().max_memory() < MOST_MEMORY


@pytest.mark.filterwarnings("ignore")
def test_an_edit_that_no_cluster_holds_is_shown_and_reported_by_verify(full):
    newest = Project.open(full.path)
    (entry,) = [entry for entry in newest.files() if entry.role == "states"]
    assert newest.edit("e000004").status == "reverted"
    rows = [row for row in State.load(full.path).edit_statuses.rows() if row[0] != 4]
    codec.write_batches(full.path / entry.path, states.SCHEMA, [states.encode(rows)])
    signed_again(full.path, entry.path)
    shown = Project.open(full.path).edit("e000004")
    assert (shown.status, shown.cluster) == ("live", None)
    assert any("e000004" in finding.problem for finding in verify(full.path))


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_manifest_or_snapshot_file(full, make, tmp_path, fuzz, tally):
    @fuzz
    @given(data=st.data())
    def check(data):
        root = tmp_path / "fuzzed"
        shutil.rmtree(root, ignore_errors=True)  # hypothesis may break an example off in the midst of a draw
        shutil.copytree(full.path, root)
        name = data.draw(st.sampled_from(["manifest.json", "snapshots/000004.json", "index/neurons.json"]))
        (root / name).write_bytes(mutated(data, (root / name).read_bytes()))
        try:
            use(root, make)
        finally:
            shutil.rmtree(root)
        tally["fuzzed files"] += 1

    check()
