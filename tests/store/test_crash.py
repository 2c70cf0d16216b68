"""Crashes and refusals of the disk: wherever a command stops, the project is the old or the new one.

In the short form the disk stops the command at some of its operations by an exception, in the full form at
every one by SIGKILL, in a process of its own. A write that is stopped is torn in half; a `LossyDisk` forgets
as well whatever was not yet synced: contents, new names, renames and removals.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melo_store.errors import StorageError, StoreWarning
from melo_store.format import file_io, manifest, merge_plan
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.migrate import migrate
from melo_store.maintenance.repair import repair
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.writer import open_writer


class PowerCutError(BaseException):
    """The process is gone."""


class CountingDisk(file_io.Disk):
    """Counts operations, and from the n-th on calls `stop` in place of each; a write is torn in half."""

    def __init__(self, at=None, stop=None):
        self.count = 0
        self.at = at
        self.stop = stop

    def step(self):
        self.count += 1
        if self.at is not None and self.count >= self.at:
            self.lose()
            self.stop()

    def lose(self):
        """What a crash takes."""

    def create(self, path):
        self.step()
        return super().create(path)

    def write(self, handle, data):
        if self.count + 1 == self.at and self.stop is not full_disk:
            super().write(handle, data[: len(data) // 2])
        self.step()
        return super().write(handle, data)

    def fsync(self, handle):
        self.step()

    def replace(self, source, target):
        self.step()
        super().replace(source, target)

    def unlink(self, path):
        self.step()
        super().unlink(path)


class LossyDisk(CountingDisk):
    """A disk that a power cut takes everything from that was not synced."""

    def __init__(self, at=None, stop=None):
        super().__init__(at, stop)
        self.synced_size = {}  # of files written to
        self.undo = {}  # by folder: how to take back changes of its names, oldest first

    def create(self, path):
        old = path.read_bytes() if path.exists() else None
        handle = super().create(path)
        self.synced_size[path] = 0
        if old is None:
            self.undo.setdefault(path.parent, []).append(lambda: path.unlink(missing_ok=True))
        return handle

    def fsync(self, handle):
        super().fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            self.undo.pop(path, None)
        else:
            self.synced_size[path] = path.stat().st_size

    def replace(self, source, target):
        new, old = source.read_bytes(), target.read_bytes() if target.exists() else None
        super().replace(source, target)

        def take_back():
            source.write_bytes(new)
            target.unlink() if old is None else target.write_bytes(old)

        self.undo.setdefault(target.parent, []).append(take_back)

    def unlink(self, path):
        old = path.read_bytes() if path.exists() else None
        super().unlink(path)
        if old is not None:
            self.undo.setdefault(path.parent, []).append(lambda: path.write_bytes(old))

    def lose(self):
        for path, synced in self.synced_size.items():
            if path.exists() and path.stat().st_size > synced:
                os.truncate(path, (synced + path.stat().st_size) // 2)
        for steps in self.undo.values():
            for step in reversed(steps):
                step()
        self.synced_size, self.undo = {}, {}


def cut():
    raise PowerCutError


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


def content(project):
    """What a user can see of the newest snapshot, without times."""
    views = project.edits()
    keys = np.stack([view.record.key for view in views if view.record.key is not None])
    return (
        [(view.edit_id, view.prompt, view.status, view.superseded_by, view.block) for view in views],
        [(c.cluster, c.members, c.radius) for c in (view.cluster for view in views) if c],
        [part.A.tobytes() for name in project.block_ids() for part in project.block(name).slices.values()],
        project.nearest(keys),
        [None if tokens is None else tokens.tobytes() for tokens in project.tokens(project.statuses())],
        project.key_map and project.key_map.settings,
    )


@pytest.fixture
def prepared(project, make, quick_disk, monkeypatch):
    """A project with a graph and garbage, so that every command has something to do."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 6)
    monkeypatch.setattr(merge_plan, "MANY", 3)
    with open_writer(project) as writer:
        for numbers in (range(4), range(4, 7), range(7, 10)):
            make.commit_with(
                writer, [make.edit(f"q{at}", label=(at,), radius=make.near(at)) for at in numbers]
            )
        writer.state.save_index()
    (project.path / "edits/000009.arrow").write_bytes(b"left behind")
    (project.path / "blocks/000009.arrow").write_bytes(b"left behind")
    return project


@pytest.fixture
def commands(make):
    again = [make.edit("q3", label=(40,)), make.edit("new", label=(41,)), make.edit("no", status="failed")]
    slices = make.slices()
    new = {f"e{at:06d}": make.key()[:3] for at in range(1, 11)}
    tokens = {name: make.tokens(at, 3) for at, name in enumerate(new, 1)}
    key_map = KeyMap({"size": 3}, {"W": make.key()})

    def commit(path):
        project = Project.open(path)
        if project.snapshot == 3:  # a user who sees the edits there does not make them again
            with open_writer(project) as writer:
                make.commit_with(writer, again, {"new": slices})

    def revert(path):
        with open_writer(Project.open(path)) as writer:
            writer.revert(["e000002", "e000005"], versions=make.versions)

    def go_back(path):
        with open_writer(Project.open(path)) as writer:
            writer.revert_to(0, versions=make.versions)

    def rekey(path):
        with open_writer(Project.open(path)) as writer:
            keys = {view.edit_id: new[view.edit_id] for view in writer.project.edits()}
            radii = {name: make.near(at) for at, name in enumerate(keys)}
            writer.rekey(key_map, keys, tokens, radii, recipe={}, seed=0, versions=make.versions)

    def save_index(path):
        with open_writer(Project.open(path)) as writer:
            writer.state.save_index()

    return {
        "commit": commit,
        "commit to format 2": commit,
        "revert": revert,
        "go back": go_back,
        "rekey": rekey,
        "gc": lambda path: collect(path, versions=make.versions, keep=1),
        "migrate": migrate,
        "save index": save_index,
    }


NAMES = ["commit", "commit to format 2", "revert", "go back", "rekey", "gc", "migrate", "save index"]


def operations(command, path, monkeypatch):
    """How many operations an uninterrupted run takes."""
    disk = CountingDisk()
    monkeypatch.setattr(file_io, "disk", disk)
    command(path)
    return disk.count


def stopped(command, path, disk, monkeypatch):
    """Run a command until the disk stops it."""
    monkeypatch.setattr(file_io, "disk", disk)
    if disk.stop is cut:
        with pytest.raises(PowerCutError):
            command(path)
    else:
        child = os.fork()
        if child == 0:
            command(path)
            os._exit(0)  # it was not stopped
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    monkeypatch.setattr(file_io, "disk", CountingDisk())


def every_stop(total, torture):
    """A disk for every operation and way to stop there; in the short form some, in one way each."""
    if torture:
        return [kind(at, kill) for at in range(1, total + 1) for kind in (CountingDisk, LossyDisk)]
    return [(CountingDisk, LossyDisk)[at % 2](at, cut) for at in range(1, total + 1, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_a_crash_at_any_operation_leaves_the_old_or_the_new(
    name, prepared, commands, make, tmp_path, monkeypatch, torture, tally
):
    if name in ("migrate", "commit to format 2"):
        head = manifest.read_head(prepared.path)
        manifest.write_head(prepared.path, replace(head, format=2))
    command = commands[name]
    old = content(Project.open(prepared.path))
    done = tmp_path / "done"
    shutil.copytree(prepared.path, done)
    total = operations(command, done, monkeypatch)
    new = content(Project.open(done))
    assert total > 8
    for disk in every_stop(total, torture):
        path = tmp_path / "crashed"
        shutil.copytree(prepared.path, path)
        stopped(command, path, disk, monkeypatch)
        assert verify(path) == [], disk.at
        assert content(Project.open(path)) in (old, new), disk.at
        command(path)
        assert content(Project.open(path)) == new, disk.at
        assert verify(path) == [], disk.at
        collect(path, versions=make.versions)
        assert content(Project.open(path)) == new, disk.at
        shutil.rmtree(path)
        tally[f"kill points of {name}"] += 1


def test_a_crash_of_a_repair_loses_nothing_more(prepared, make, tmp_path, monkeypatch, torture, tally):
    broken = prepared.path / "edits/000002.arrow"
    broken.write_bytes(broken.read_bytes()[:-1])

    def command(path):
        repair(path, versions=make.versions)

    done = tmp_path / "done"
    shutil.copytree(prepared.path, done)
    total = operations(command, done, monkeypatch)
    new = content(Project.open(done))
    for disk in every_stop(total, torture):
        path = tmp_path / "crashed"
        shutil.copytree(prepared.path, path)
        stopped(command, path, disk, monkeypatch)
        command(path)
        assert verify(path) == [], disk.at
        assert content(Project.open(path)) == new, disk.at
        shutil.rmtree(path)
        tally["kill points of repair"] += 1


@pytest.mark.parametrize("name", ["commit", "revert", "rekey"])
def test_a_full_disk_is_said_in_a_line_and_the_old_snapshot_is_whole(
    name, prepared, commands, tmp_path, monkeypatch, torture, tally
):
    command = commands[name]
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 1000)  # that an index cannot be saved is no failure
    old = content(Project.open(prepared.path))
    done = tmp_path / "done"
    shutil.copytree(prepared.path, done)
    total = operations(command, done, monkeypatch)
    new = content(Project.open(done))
    before = sorted(path.name for path in prepared.path.rglob("*.arrow"))
    for at in range(1, total, 1 if torture else 3):
        path = tmp_path / f"full{at}"
        shutil.copytree(prepared.path, path)
        monkeypatch.setattr(file_io, "disk", CountingDisk(at, full_disk))
        with pytest.raises(StorageError, match="disk is full; free some space and run the command again"):
            command(path)
        monkeypatch.setattr(file_io, "disk", CountingDisk())
        assert verify(path) == []
        now = content(Project.open(path))
        assert now in (old, new)
        if now == old:
            assert {path.name for path in path.rglob("*.arrow")} >= set(before)
        command(path)
        assert content(Project.open(path)) == new
        shutil.rmtree(path)
        tally["refused operations of a full disk"] += 1


def test_a_failed_commit_gives_its_space_back(prepared, commands, monkeypatch):
    before = prepared.size_bytes()
    disk = CountingDisk()
    real = disk.replace

    def refuse(source, target):
        if target.name == "manifest.json":
            full_disk()
        real(source, target)

    disk.replace = refuse
    monkeypatch.setattr(file_io, "disk", disk)
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

    monkeypatch.setattr(file_io, "disk", CountingDisk(1, refuse))
    with pytest.raises(StorageError, match=message):
        commands["commit"](prepared.path)


def test_an_index_that_cannot_be_saved_costs_a_warning_not_the_commit(prepared, make, monkeypatch):
    class NoIndex(CountingDisk):
        def replace(self, source, target):
            if target.parent.name == "index":
                full_disk()
            super().replace(source, target)

    monkeypatch.setattr(file_io, "disk", NoIndex())
    edits = [make.edit(f"n{at}", label=(at,)) for at in range(300)]
    with pytest.warns(UserWarning, match="index could not be saved.*disk is full"):
        make.commit(prepared, edits)
    assert Project.open(prepared.path).edit_counts["live"] == 310


def test_files_are_on_the_disk_before_a_snapshot_names_them(prepared, commands, monkeypatch):
    """The order: every data file and its folder synced, the snapshot file, then the one rename."""
    seen = []

    class Recorder(file_io.Disk):
        def create(self, path):
            handle = super().create(path)
            seen.append(("create", path.relative_to(prepared.path).as_posix()))
            return handle

        def fsync(self, handle):
            seen.append(("sync", None))

        def replace(self, source, target):
            seen.append(("replace", target.name))
            super().replace(source, target)

    monkeypatch.setattr(file_io, "disk", Recorder())
    commands["commit"](prepared.path)
    steps = [step for step in seen if step[1] is None or not step[1].startswith("lock")]
    swap = steps.index(("replace", "manifest.json"))
    created = [name for kind, name in steps if kind == "create"]
    assert created == [
        "edits/000004.arrow",
        "blocks/000004.arrow",
        "clusters/000004.arrow",
        "states/000004.arrow",
        "snapshots/000004.json",
        "manifest.json.tmp",
    ]
    for name in created[:-1]:
        at = steps.index(("create", name))
        assert steps[at + 1 : at + 3] == [("sync", None)] * 2, "the file, then the folder's names"
        assert at + 2 < swap
    assert steps[swap - 1 : swap + 2] == [("sync", None), ("replace", "manifest.json"), ("sync", None)]


def test_a_project_on_a_disk_that_refuses_writes_still_answers(prepared, make, monkeypatch):
    """The index is gone, and cannot be saved again."""
    expected = content(Project.open(prepared.path))
    shutil.rmtree(prepared.path / "index")

    def refuse():
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(file_io, "disk", CountingDisk(1, refuse))
    with pytest.warns(StoreWarning, match="rebuilt from the keys"):
        assert content(Project.open(prepared.path)) == expected
