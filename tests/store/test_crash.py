"""Crashes and refusals of the disk: wherever a command stops, the project is the old or the new one.

The short form: the process is not killed, but the disk stops at the n-th operation, with the last write torn
in half, and everything is opened anew.
"""

from __future__ import annotations

import errno
import shutil

import numpy as np
import pytest

from store import fileio, index
from store.errors import StorageError
from store.gc import collect
from store.project import Project
from store.records import KeyMap
from store.verify import verify


class PowerCutError(BaseException):
    """The process is gone."""


class CountingDisk(fileio.Disk):
    """Counts operations, and from the n-th on calls `stop` in place of each; a write is torn in half."""

    def __init__(self, at=None, stop=None):
        self.count = 0
        self.at = at
        self.stop = stop

    def step(self):
        self.count += 1
        if self.at is not None and self.count >= self.at:
            self.stop()

    def create(self, path):
        self.step()
        return super().create(path)

    def write(self, handle, data):
        try:
            self.step()
        except PowerCutError:
            super().write(handle, data[: len(data) // 2])
            raise
        return super().write(handle, data)

    def fsync(self, handle):
        self.step()

    def replace(self, source, target):
        self.step()
        super().replace(source, target)

    def unlink(self, path):
        self.step()
        super().unlink(path)


def cut():
    raise PowerCutError


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


def content(project):
    """What a user can see of the newest snapshot, without times."""
    views = project.edits()
    keys = np.stack([view.record.key for view in views])
    return (
        [(view.edit_id, view.prompt, view.status, view.superseded_by, view.block) for view in views],
        [(c.cluster, c.members, c.radius) for c in (view.cluster for view in views) if c],
        [part.A.tobytes() for name in project.block_ids() for part in project.block(name).slices.values()],
        project.lookup(keys),
        project.key_map and project.key_map.settings,
    )


@pytest.fixture
def prepared(project, make, quick_disk, monkeypatch):
    """A project with a graph and garbage, so that every command has something to do."""
    monkeypatch.setattr(index, "GRAPH_FROM", 6)
    with project.writer() as writer:
        make.commit_with(writer, [make.edit(f"q{at}", label=(at,), radius=4.0) for at in range(10)])
        writer.project._state.save_index()
    (project.path / "edits/000009.arrow").write_bytes(b"left behind")
    (project.path / "blocks/000009.arrow").write_bytes(b"left behind")
    return project


@pytest.fixture
def commands(make):
    again = [make.edit("q3", label=(40,)), make.edit("new", label=(41,)), make.edit("no", status="failed")]
    slices = make.slices()
    new = {f"e{at:06d}": make.key()[:3] for at in range(1, 11)}
    key_map = KeyMap({"size": 3}, {"W": make.key()})

    def commit(path):
        project = Project.open(path)
        if project.snapshot == 1:  # a user who sees the edits there does not make them again
            with project.writer() as writer:
                make.commit_with(writer, again, {"new": slices})

    def revert(path):
        with Project.open(path).writer() as writer:
            writer.revert(["e000002", "e000005"], versions=make.versions)

    def go_back(path):
        with Project.open(path).writer() as writer:
            writer.revert_to(0, versions=make.versions)

    def rekey(path):
        with Project.open(path).writer() as writer:
            keys = {view.edit_id: new[view.edit_id] for view in writer.project.edits()}
            writer.rekey(key_map, keys, dict.fromkeys(keys, 4.0), recipe={}, seed=0, versions=make.versions)

    def save_index(path):
        with Project.open(path).writer() as writer:
            writer.project._state.save_index()

    return {
        "commit": commit,
        "revert": revert,
        "go back": go_back,
        "rekey": rekey,
        "gc": lambda path: collect(path, versions=make.versions),
        "save index": save_index,
    }


NAMES = ["commit", "revert", "go back", "rekey", "gc", "save index"]


def operations(command, path, monkeypatch):
    disk = CountingDisk()
    monkeypatch.setattr(fileio, "disk", disk)
    command(path)
    return disk.count


@pytest.mark.parametrize("name", NAMES)
def test_a_crash_at_any_operation_leaves_the_old_or_the_new(
    name, prepared, commands, make, tmp_path, monkeypatch
):
    command = commands[name]
    old = content(Project.open(prepared.path))
    done = tmp_path / "done"
    shutil.copytree(prepared.path, done)
    total = operations(command, done, monkeypatch)
    new = content(Project.open(done))
    assert total > 8
    for at in range(1, total + 1):
        path = tmp_path / f"crashed{at}"
        shutil.copytree(prepared.path, path)
        monkeypatch.setattr(fileio, "disk", CountingDisk(at, cut))
        with pytest.raises(PowerCutError):
            command(path)
        monkeypatch.setattr(fileio, "disk", CountingDisk())
        assert verify(path) == [], at
        assert content(Project.open(path)) in (old, new), at
        command(path)
        assert content(Project.open(path)) == new, at
        assert verify(path) == [], at
        collect(path, versions=make.versions)
        assert content(Project.open(path)) == new, at
        shutil.rmtree(path)


@pytest.mark.parametrize("name", ["commit", "revert", "rekey"])
def test_a_full_disk_is_said_in_a_line_and_the_old_snapshot_is_whole(
    name, prepared, commands, tmp_path, monkeypatch
):
    command = commands[name]
    old = content(Project.open(prepared.path))
    done = tmp_path / "done"
    shutil.copytree(prepared.path, done)
    total = operations(command, done, monkeypatch)
    new = content(Project.open(done))
    before = sorted(path.name for path in prepared.path.rglob("*.arrow"))
    for at in range(1, total):
        path = tmp_path / f"full{at}"
        shutil.copytree(prepared.path, path)
        monkeypatch.setattr(fileio, "disk", CountingDisk(at, full_disk))
        with pytest.raises(StorageError, match="disk is full; free some space and run the command again"):
            command(path)
        monkeypatch.setattr(fileio, "disk", CountingDisk())
        assert verify(path) == []
        now = content(Project.open(path))
        assert now in (old, new)
        if now == old:
            assert {path.name for path in path.rglob("*.arrow")} >= set(before)
        command(path)
        assert content(Project.open(path)) == new
        shutil.rmtree(path)


def test_a_failed_commit_gives_its_space_back(prepared, commands, monkeypatch):
    before = prepared.size_bytes()
    disk = CountingDisk()
    real = disk.replace

    def refuse(source, target):
        if target.name == "manifest.json":
            full_disk()
        real(source, target)

    disk.replace = refuse
    monkeypatch.setattr(fileio, "disk", disk)
    with pytest.raises(StorageError, match=r"manifest\.json: the disk is full"):
        commands["commit"](prepared.path)
    assert prepared.size_bytes() == before


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "read-only; copy the project"),
        (errno.EACCES, "permission is denied; change the permissions"),
        (errno.EIO, "check the disk and try again"),
    ],
)
def test_what_the_file_system_refuses_is_said(number, message, prepared, commands, monkeypatch):
    def refuse():
        raise OSError(number, "what the system says")

    monkeypatch.setattr(fileio, "disk", CountingDisk(1, refuse))
    with pytest.raises(StorageError, match=message):
        commands["commit"](prepared.path)


def test_an_index_that_cannot_be_saved_costs_a_warning_not_the_commit(prepared, make, monkeypatch):
    class NoIndex(CountingDisk):
        def replace(self, source, target):
            if target.parent.name == "index":
                full_disk()
            super().replace(source, target)

    monkeypatch.setattr(fileio, "disk", NoIndex())
    edits = [make.edit(f"n{at}", label=(at,)) for at in range(300)]
    with pytest.warns(UserWarning, match="index could not be saved.*disk is full"):
        make.commit(prepared, edits)
    assert Project.open(prepared.path).edit_counts["live"] == 310


def test_files_are_on_the_disk_before_a_snapshot_names_them(prepared, commands, monkeypatch):
    """The order: every data file and its folder synced, the snapshot file, then the one rename."""
    seen = []

    class Recorder(fileio.Disk):
        def create(self, path):
            handle = super().create(path)
            seen.append(("create", path.relative_to(prepared.path).as_posix()))
            return handle

        def fsync(self, handle):
            seen.append(("sync", None))

        def replace(self, source, target):
            seen.append(("replace", target.name))
            super().replace(source, target)

    monkeypatch.setattr(fileio, "disk", Recorder())
    commands["commit"](prepared.path)
    steps = [step for step in seen if step[1] is None or not step[1].startswith("lock")]
    swap = steps.index(("replace", "manifest.json"))
    created = [name for kind, name in steps if kind == "create"]
    assert created == [
        "edits/000002.arrow",
        "blocks/000002.arrow",
        "clusters/000002.arrow",
        "states/000002.arrow",
        "snapshots/000002.json",
        "manifest.json.tmp",
    ]
    for name in created[:-1]:
        at = steps.index(("create", name))
        assert steps[at + 1 : at + 3] == [("sync", None)] * 2, "the file, then the folder's names"
        assert at + 2 < swap
    assert steps[swap - 1 : swap + 2] == [("sync", None), ("replace", "manifest.json"), ("sync", None)]
